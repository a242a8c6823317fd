"""Relational losses in float64 numpy, pair by pair and triplet by triplet, as in the papers."""

import math

import numpy as np


def huber(x, y):
    gap = abs(x - y)
    return 0.5 * gap**2 if gap < 1 else gap - 0.5


def length(x):
    return math.sqrt(float((x**2).sum()))


def unit(x):
    norm = length(x)
    return x / norm if norm > 0 else np.zeros_like(x)


def relative_distances(rows):
    found = [[length(x - y) for y in rows] for x in rows]
    positive = [d for row in found for d in row if d > 0]
    return [[d / np.mean(positive) if positive else 0.0 for d in row] for row in found]


def rkd_distance(student, teacher):
    n, s, t = len(student), relative_distances(student), relative_distances(teacher)
    return sum(huber(s[i][j], t[i][j]) for i in range(n) for j in range(n)) / n**2


def angle(rows, i, j, k):
    return float(unit(rows[i] - rows[j]) @ unit(rows[k] - rows[j]))


def rkd_angle(student, teacher):
    n = len(student)
    triplets = [(i, j, k) for i in range(n) for j in range(n) for k in range(n)]
    return sum(huber(angle(student, *ijk), angle(teacher, *ijk)) for ijk in triplets) / n**3


def sp(student, teacher):
    n = len(student)
    s, t = ([unit(np.array([x @ y for y in rows])) for x in rows] for rows in (student, teacher))
    return sum((s[i][j] - t[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def probabilities(rows):
    similar = [[(float(unit(x) @ unit(y)) + 1) / 2 for y in rows] for x in rows]
    return [[s / sum(row) for s in row] for row in similar]


def pkt(student, teacher, eps=1e-7):
    n, s, t = len(student), probabilities(student), probabilities(teacher)
    terms = [t[i][j] * math.log((t[i][j] + eps) / (s[i][j] + eps)) for i in range(n) for j in range(n)]
    return sum(terms) / n**2
