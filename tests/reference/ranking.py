"""Ranking losses in float64 numpy, anchor by anchor, as in the papers and their authors' code."""

import math
from itertools import permutations

import numpy as np

from tests.reference.relational import length, unit


def others(count, i, closeness, size):
    """The closest rows to i but i, of equals the lower index first."""
    return sorted((j for j in range(count) if j != i), key=lambda j: (-closeness(j), j))[:size]


def order_probability(scores):
    """Plackett and Luce: items are drawn one after the other, each by its share of what is left."""
    strengths, probability = [math.exp(score) for score in scores], 1.0
    for m in range(len(strengths)):
        probability *= strengths[m] / sum(strengths[m:])
    return probability


def lists(student, teacher, alpha, beta, size, normalize):
    """For each row, student's and teacher's scores of the teacher's nearest rows, nearest first."""
    s, t = ([unit(x) for x in rows] if normalize else rows for rows in (student, teacher))
    for i in range(len(s)):
        near = others(len(s), i, lambda j, i=i: -length(t[i] - t[j]), size)
        yield [[-alpha * length(rows[i] - rows[j]) ** beta for j in near] for rows in (s, t)]


def darkrank_hard(student, teacher, alpha=3, beta=3, size=4, normalize=True):
    return np.mean([-math.log(order_probability(s)) for s, _ in lists(student, teacher, alpha, beta, size, normalize)])


def darkrank_soft(student, teacher, alpha=3, beta=3, size=4, normalize=True):
    values = []
    for s, t in lists(student, teacher, alpha, beta, size, normalize):
        orders = list(permutations(range(len(s))))
        p, q = ([order_probability([scores[m] for m in order]) for order in orders] for scores in (t, s))
        values.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
    return np.mean(values)


def softmax(values, temperature):
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def csd(student, teacher, k=256, student_temperature=1.0, teacher_temperature=0.01):
    s, t = [unit(x) for x in student], [unit(x) for x in teacher]
    values = []
    for i in range(len(t)):
        near = sorted(range(len(t)), key=lambda j, i=i: (-float(t[i] @ t[j]), j))[:k]
        p = softmax([float(t[i] @ t[j]) for j in near], teacher_temperature)
        q = softmax([float(s[i] @ t[j]) for j in near], student_temperature)
        values.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0))
    return np.mean(values)


def d3still(student, teacher, k=10, alpha=50.0, beta=2.0, gamma=1.0):
    s, t = [unit(x) for x in student], [unit(x) for x in teacher]
    n, relations = len(t), []
    for i in range(n):
        near = others(n, i, lambda j, i=i: float(t[i] @ t[j]), k - 1)
        hard, easy = 0.0, 0.0
        for j in near:
            for m in near:
                theirs, ours = float(t[i] @ t[j] - t[i] @ t[m]), float(s[i] @ t[j] - s[i] @ t[m])
                square = ((ours - theirs) / (0.1 + abs(theirs))) ** 2
                hard += square * (ours * theirs < 0)
                easy += square * (ours * theirs > 0)
        relations.append((beta * math.sqrt(hard) + gamma * math.sqrt(easy)) / max(len(near), 1))
    features = math.sqrt(sum(float(t[i] @ t[i] - s[i] @ t[i]) ** 2 for i in range(n))) / n
    return alpha * features + np.mean(relations)
