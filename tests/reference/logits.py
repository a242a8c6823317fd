"""DIST and DKD in float64 numpy, as in the papers and their authors' code."""

import math

import numpy as np

from tests.reference.instance import probabilities
from tests.reference.relational import length


def correlation(x, y):
    """Pearson's, with the 1e-8 of the authors; 0 where one of the two does not vary."""
    if np.ptp(x) <= 1e-13 * np.abs(x).max() or np.ptp(y) <= 1e-13 * np.abs(y).max():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y) / (length(x) * length(y) + 1e-8)


def dist(student, teacher, beta=1.0, gamma=1.0, temperature=1.0):
    s, t = (np.array([probabilities(row, temperature) for row in logits]) for logits in (student, teacher))
    inter = np.mean([1 - correlation(s[i], t[i]) for i in range(s.shape[0])])
    intra = np.mean([1 - correlation(s[:, c], t[:, c]) for c in range(s.shape[1])])
    return temperature**2 * (beta * inter + gamma * intra)


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def dkd(student, teacher, labels, alpha=1.0, beta=8.0, temperature=4.0):
    total = 0.0
    for row_s, row_t, label in zip(student, teacher, labels, strict=True):
        p_s, p_t = probabilities(row_s, temperature), probabilities(row_t, temperature)
        own_s, own_t = p_s.pop(label), p_t.pop(label)
        target = divergence([own_t, 1 - own_t], [own_s, 1 - own_s])
        others = divergence([p / (1 - own_t) for p in p_t], [p / (1 - own_s) for p in p_s])
        total += temperature**2 * (alpha * target + beta * others)
    return total / len(student)
