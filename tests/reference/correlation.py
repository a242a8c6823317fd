"""Correlation congruence in float64 numpy, pair by pair, kernels written as in the paper."""

import math

import numpy as np


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def bilinear(x, y):
    return float(x @ y)


def rbf(x, y, gamma):
    return math.exp(-gamma * float(((x - y) ** 2).sum()))


def taylor(x, y, gamma, order):
    dot = float(x @ y)
    return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * dot**p for p in range(order + 1))


def mmd(x, y):
    return math.sqrt(float(((x - y) ** 2).sum()))


def median_gamma(rows):
    rows = unit(rows)
    squared = [((rows[i] - rows[j]) ** 2).sum() for i in range(len(rows)) for j in range(i)]
    return 0.5 / sorted(squared)[(len(squared) - 1) // 2]


def matrix(phi, rows, columns):
    return np.array([[phi(x, y) for y in columns] for x in rows])


def row_losses(phi, student, teacher, weights=None, past_student=(), past_teacher=()):
    """Mean over each anchor's row of w (phi_s - phi_t)^2; columns are the batch, then the past rows."""
    columns_s = np.concatenate([student, past_student]) if len(past_student) else student
    columns_t = np.concatenate([teacher, past_teacher]) if len(past_teacher) else teacher
    square = (matrix(phi, student, columns_s) - matrix(phi, teacher, columns_t)) ** 2
    return (square if weights is None else square * weights).mean(axis=1)


def listed_row_losses(phi, student, teacher, pairs, weight=lambda i, j: 1.0):
    """{anchor: mean over its listed partners, each counted once}."""
    values = {}
    for i in sorted({i for i, _ in pairs}):
        partners = sorted({j for k, j in pairs if k == i})
        values[i] = np.mean(
            [weight(i, j) * (phi(student[i], student[j]) - phi(teacher[i], teacher[j])) ** 2 for j in partners]
        )
    return values
