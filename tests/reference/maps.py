"""Losses of feature maps in float64 numpy, place by place."""

import numpy as np

from tests.reference.relational import unit


def pool(maps, height, width):
    """Average over the smallest windows that cover the map evenly."""
    n, channels, h, w = maps.shape
    pooled = np.zeros((n, channels, height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = i * h // height, -(-(i + 1) * h // height)
            left, right = j * w // width, -(-(j + 1) * w // width)
            pooled[:, :, i, j] = maps[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return pooled


def same_size(student, teacher):
    height, width = (min(student.shape[axis], teacher.shape[axis]) for axis in (2, 3))
    return pool(student, height, width), pool(teacher, height, width)


def attention_transfer(student, teacher, p=2.0):
    student, teacher = same_size(student, teacher)
    values = []
    for s, t in zip(student, teacher, strict=True):
        gap = unit((np.abs(s) ** p).mean(axis=0).ravel()) - unit((np.abs(t) ** p).mean(axis=0).ravel())
        values.append((gap**2).mean())
    return np.mean(values)


def fitnet(student, teacher, weight, bias):
    if student.ndim == 4:
        student, teacher = (np.moveaxis(maps, 1, -1) for maps in same_size(student, teacher))
    return np.mean((student @ weight.T + bias - teacher) ** 2)
