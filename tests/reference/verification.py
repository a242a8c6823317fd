"""Verification metrics, threshold by threshold."""

import numpy as np


def fold_accuracy(distances, same, folds):
    parts, found = np.array_split(np.arange(len(same)), folds), []
    for part in parts:
        rest = np.setdiff1d(np.arange(len(same)), part)
        best, best_accuracy = None, -1.0
        for threshold in np.arange(0, 4, 0.01):
            accuracy = np.mean((distances[rest] < threshold) == same[rest])
            if accuracy > best_accuracy:
                best, best_accuracy = threshold, accuracy
        found.append(np.mean((distances[part] < best) == same[part]))
    return np.array(found)


def tar_at_far(scores, same, far):
    """The best true rate of any threshold whose false rate is at most ``far``."""
    best = 0.0
    for threshold in scores:
        if np.mean(scores[~same] > threshold) <= far:
            best = max(best, np.mean(scores[same] > threshold))
    return best
