"""Losses that look at each image by itself, in float64, row by row."""

import math

import numpy as np


def probabilities(row, temperature=1.0):
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits, labels, smoothing=0.0):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = probabilities(row)
        target = [smoothing / len(row) + (1 - smoothing) * (c == label) for c in range(len(row))]
        total -= sum(t * math.log(q) for t, q in zip(target, p, strict=True))
    return total / len(logits)


def hinton_kd(student, teacher, temperature):
    total = 0.0
    for row_s, row_t in zip(student, teacher, strict=True):
        p_s, p_t = probabilities(row_s, temperature), probabilities(row_t, temperature)
        total += temperature**2 * sum(t * math.log(t / s) for t, s in zip(p_t, p_s, strict=True))
    return total / len(student)


def cosine(x, y):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    norms = math.sqrt(x @ x) * math.sqrt(y @ y)
    return float(x @ y) / norms if norms else 0.0


def cosine_mimic(student, teacher):
    return np.mean([1 - cosine(s, t) for s, t in zip(student, teacher, strict=True)])


def projected_mimic(student, teacher, weight, bias):
    return cosine_mimic([weight @ s + bias for s in np.asarray(student, np.float64)], teacher)


def l2_mimic(student, teacher, normalize=True):
    total = 0.0
    for s, t in zip(np.asarray(student, np.float64), np.asarray(teacher, np.float64), strict=True):
        if normalize:
            s, t = s / (math.sqrt(s @ s) or 1.0), t / (math.sqrt(t @ t) or 1.0)
        total += sum((a - b) ** 2 for a, b in zip(s, t, strict=True))
    return total / len(student)
