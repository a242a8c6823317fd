"""Whether a network knows more than one that guesses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid_cckd.assess.verdict import Judge
from reid_cckd.batch import Answer

GUESSES = 19  # a network that guesses too scores above them all once in 20 times


class Guess(nn.Module):
    """A network that looks at no image: what it scores is what chance scores."""

    def __init__(self, num_classes: int, seed: int, width: int = 32) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.generator = torch.Generator().manual_seed(seed)

    def rows(self, count: int, on: Answer) -> Tensor:
        """What it says of the next ``count`` images: random numbers."""
        return torch.randn(count, self.num_classes if on == "logits" else self.width, generator=self.generator)


def best_guess(judge: Judge, num_classes: int, score: float) -> float:
    """The main score of the best of `GUESSES` networks that guess, or of the first that reaches ``score``.

    A network is above them all by luck with probability 1 / (GUESSES + 1), whatever the data, the protocol and the
    distribution of such scores: a permutation test at 5 %.
    """
    best = 0.0
    for seed in range(GUESSES):
        best = max(best, judge(Guess(num_classes, seed))[judge.main])
        if best >= score:
            break
    return best
