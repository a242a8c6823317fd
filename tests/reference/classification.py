"""Classification metrics in plain loops."""

import numpy as np


def accuracy(logits, labels, k):
    return np.mean([label in np.argsort(-row, kind="stable")[:k] for row, label in zip(logits, labels, strict=True)])


def calibration_error(logits, labels, bins):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low, high in zip(np.linspace(0, 1, bins + 1)[:-1], np.linspace(0, 1, bins + 1)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error
