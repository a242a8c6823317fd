"""CRD in float64 numpy, draw by draw, with the paper's P / (P + K / n) and constant Z."""

import math

import numpy as np

from tests.reference.relational import unit


def projected(rows, weight, bias):
    return [unit(weight @ row + bias) for row in rows]


def strengths(units, bank, columns, temperature):
    """e^(similarity / temperature) of each row with each of its columns of the bank, the image itself first."""
    return np.array([[math.exp(x @ bank[c] / temperature) for c in row] for x, row in zip(units, columns, strict=True)])


def side(strength, constant, num_images):
    noise = (strength.shape[1] - 1) / num_images
    total = 0.0
    for own, *others in strength / constant:
        total -= math.log(own / (own + noise)) + sum(math.log(noise / (p + noise)) for p in others)
    return total / len(strength)


def crd(student, teacher, student_bank, teacher_bank, columns, temperature=0.07, constants=None):
    """The loss of unit rows, and the two constants Z: those given, or those that this batch fixes."""
    num_images = len(student_bank)
    both = [
        strengths(units, bank, columns, temperature)
        for units, bank in ((student, teacher_bank), (teacher, student_bank))
    ]
    constants = constants or [strength.mean() * num_images for strength in both]
    return sum(side(s, z, num_images) for s, z in zip(both, constants, strict=True)), constants


def remembered(bank, units, index, momentum=0.5):
    new = np.array(bank, dtype=np.float64)
    for image in sorted(set(index)):
        mean = np.mean([row for row, i in zip(units, index, strict=True) if i == image], axis=0)
        new[image] = unit(momentum * new[image] + (1 - momentum) * mean)
    return new
