"""Instance congruence: what the teacher says about each image by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.precision import at_least_float32


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(z_t / tau) || softmax(z_s / tau)), (N, C) -> (N,)."""
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


class CrossEntropy(nn.Module):
    """Softmax cross-entropy of logits (N, C) and labels (N,), torch's own; ``label_smoothing`` in [0, 1]."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None, ref_emb: None = None) -> Tensor:
        return functional.cross_entropy(at_least_float32(embeddings), labels, label_smoothing=self.label_smoothing)


class HintonKD(nn.Module):
    """Mean over the batch of tau^2 KL(softmax(z_t / tau) || softmax(z_s / tau)).

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2; CCKD eq. 2.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        self.temperature = temperature

    def forward(
        self, embeddings: Tensor, labels: Any = None, indices_tuple: Any = None, ref_emb: Tensor | None = None
    ) -> Tensor:
        assert ref_emb is not None
        return soft_cross_entropy(embeddings, ref_emb.detach(), self.temperature).mean()


class CosineMimic(nn.Module):
    """Mean of 1 - cos(f_s, f_t)."""

    def forward(
        self, embeddings: Tensor, labels: Any = None, indices_tuple: Any = None, ref_emb: Tensor | None = None
    ) -> Tensor:
        assert ref_emb is not None
        return (1 - torch.cosine_similarity(embeddings, ref_emb.detach(), dim=1)).mean()
