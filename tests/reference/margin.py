"""AdaDistill and AdaFace in float64 numpy, row by row, as in the papers and their authors' code."""

import math

import numpy as np

from tests.reference.instance import cross_entropy
from tests.reference.relational import length, unit


def cosines(rows, centres):
    return np.array([[float(unit(x) @ unit(w)) for w in centres] for x in rows])


def margin_softmax(student, labels, centres, kind="arc", scale=64.0, margin=0.45):
    logits = cosines(student, centres)
    for row, label in zip(logits, labels, strict=True):
        theta = math.acos(min(max(row[label], -1), 1))
        row[label] = math.cos(theta + margin) if kind == "arc" else row[label] - margin
    return cross_entropy(scale * logits, labels)


def moved_centres(centres, student, teacher, labels, weighted=True):
    new = np.array(centres, dtype=np.float64)
    for label in sorted(set(labels)):
        updates = []
        for s, t in ((unit(s), unit(t)) for s, t, y in zip(student, teacher, labels, strict=True) if y == label):
            keep = float(s @ t)
            if weighted:
                keep *= min(max(float(unit(centres[label]) @ t), 1e-6), 1)
            keep = min(max(keep, 1e-6), 1)
            updates.append(keep * centres[label] + (1 - keep) * t)
        new[label] = np.mean(updates, axis=0)
    return new


def adaface_lengths(rows):
    return [min(max(length(x), 1e-3), 100) for x in rows]


def adaface(rows, labels, weight, mean, deviation, margin=0.4, h=0.333, scale=64.0):
    logits = np.clip(cosines(rows, weight), -1 + 1e-3, 1 - 1e-3)
    for row, label, size in zip(logits, labels, adaface_lengths(rows), strict=True):
        quality = min(max(h * (size - mean) / (deviation + 1e-3), -1), 1)
        theta = min(max(math.acos(row[label]) - margin * quality, 1e-3), math.pi - 1e-3)
        row[label] = math.cos(theta) - (margin + margin * quality)
    return cross_entropy(scale * logits, labels)
