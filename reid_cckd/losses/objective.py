"""The whole objective: named weighted terms, every one of them reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.losses.distributed import gather_output, gather_rows, rows_are_whole
from reid_cckd.losses.precision import at_least_float32, full_precision

Stage = Literal["embedding", "neck", "logits", "feature_map"]


@dataclass(frozen=True)
class Ramp:
    """A weight that goes from ``start`` to ``stop`` between the fractions ``begin`` and ``end`` of the training."""

    start: float
    stop: float
    begin: float = 0.0
    end: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.stop)):
            raise ValueError(f"start and stop: expected finite numbers, got {self.start} and {self.stop}")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"shape: expected 'linear' or 'cosine', got {self.shape!r}")
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(f"begin and end: expected 0 <= begin < end <= 1, got {self.begin} and {self.end}")

    def at(self, progress: float) -> float:
        """The weight after a fraction of the training."""
        done = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        eased = (1 - math.cos(math.pi * done)) / 2 if self.shape == "cosine" else done
        return self.start + (self.stop - self.start) * eased


@dataclass(frozen=True)
class Term:
    """One loss with PML's call, its weight, and where in the network it looks.

    ``on`` and ``needs_teacher``: None is what the loss says of itself (its ``stage`` and ``needs_teacher``, as those of
    this package have them), and where it says nothing, as PML's, the embedding and no teacher. Only a loss that needs
    one is given the teacher's rows: a label loss handed them as ``ref_emb`` computes something else without a word.
    ``miner``: a PML miner, asked for pairs or triplets of the student's rows.

    Raises:
        ValueError: a weight that is not finite, or no such place.
    """

    name: str
    loss: nn.Module
    weight: float | Ramp = 1.0
    on: Stage | None = None
    miner: Callable[[Tensor, Tensor], Any] | None = None
    needs_teacher: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Ramp) and not math.isfinite(self.weight):
            raise ValueError(f"weight of term {self.name!r}: expected a finite number or a Ramp, got {self.weight}")
        if self.stage not in get_args(Stage):
            raise ValueError(f"on of term {self.name!r}: expected one of {get_args(Stage)}, got {self.stage!r}")

    @property
    def stage(self) -> Stage:
        """Where in the network the loss looks."""
        return getattr(self.loss, "stage", "embedding") if self.on is None else self.on

    @property
    def learns(self) -> bool:
        """Whether the loss is given the teacher's rows."""
        return getattr(self.loss, "needs_teacher", False) if self.needs_teacher is None else self.needs_teacher

    def weight_at(self, progress: float) -> float:
        """The weight after a fraction of the training."""
        return self.weight.at(progress) if isinstance(self.weight, Ramp) else self.weight


@dataclass(frozen=True)
class Share:
    """What one term contributes: of the loss, and of the gradient on the student's embedding or feature map."""

    term: str
    value: float
    weight: float
    loss_share: float
    gradient_norm: float
    gradient_share: float


class Objective(nn.Module):
    """L = sum of weight x term, such as alpha CE + (1 - alpha) KD + beta CC (Peng et al., ICCV 2019, eq. 9).

    ``gather``: in a distributed run every process computes the loss of the rows of all (see `gather_rows`), so that a
    batch that is split over processes gives the losses and gradients of the whole batch.

    Raises:
        ValueError: no terms, or two of one name; in the call, a term that lacks the teacher or the stage it needs.
    """

    def __init__(self, terms: Sequence[Term], gather: bool = False) -> None:
        super().__init__()
        self.gather = gather
        names = [term.name for term in terms]
        if not names or len(set(names)) < len(names) or "loss" in names:
            raise ValueError(f"terms: expected one or more of different names, none of them 'loss', got {names}")
        self.terms = tuple(terms)
        self.modules_by_name = nn.ModuleDict({term.name: term.loss for term in terms})  # their parameters train too

    def forward(
        self,
        student: Output,
        labels: Tensor,
        teacher: Output | None = None,
        progress: float = 0.0,
        index: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``{"loss": weighted sum, name: unweighted value, ...}``; a term whose weight is 0 now is left out.

        ``progress``: fraction of the training that is done. ``index``: (N,) rows of the images, for losses that
        remember them.
        """
        weights = {term.name: weight for term in self.terms if (weight := term.weight_at(progress))}
        if not weights:
            return {"loss": student.neck.sum() * 0.0}  # every ramp is still at 0: nothing is learned in this step
        active = [term for term in self.terms if term.name in weights]
        values = self._values(active, student, labels, teacher, index)
        return {"loss": _sum([weights[name] * value for name, value in values.items()]), **values}

    def _values(
        self,
        terms: Sequence[Term],
        student: Output,
        labels: Tensor,
        teacher: Output | None,
        index: Tensor | None,
    ) -> dict[str, Tensor]:
        """The terms of the batch, or of the batches of all processes together."""
        if not self.gather:
            return {term.name: _value(term, student, labels, teacher, index) for term in terms}
        stages = {term.stage for term in terms}
        student, teacher = gather_output(student, stages), None if teacher is None else gather_output(teacher, stages)
        labels, index = gather_rows(labels), None if index is None else gather_rows(index)
        with rows_are_whole():
            return {term.name: _value(term, student, labels, teacher, index) for term in terms}

    def stages(self, progress: float) -> set[str]:
        """Where in the network the terms look that have a weight after a fraction of the training."""
        return {term.stage for term in self.terms if term.weight_at(progress)} or {"neck"}

    def changing(self) -> list[str]:
        """Terms that compute something else in every step: by a ramp, a miner, or a memory that the host keeps."""
        return [
            term.name
            for term in self.terms
            if isinstance(term.weight, Ramp) or term.miner is not None or getattr(term.loss, "memory", None) is not None
        ]

    def shards(self) -> dict[nn.Parameter, range]:
        """Parameters of which this process holds a part, and which rows of the whole these are."""
        held = [(loss, getattr(loss, "shards", {})) for loss in self.modules_by_name.values()]
        return {getattr(loss, name): rows for loss, names in held for name, rows in names.items()}

    def weights(self, progress: float) -> dict[str, float]:
        """Each term's weight after a fraction of the training."""
        return {term.name: term.weight_at(progress) for term in self.terms}

    def balance(
        self,
        student: Output,
        labels: Tensor,
        teacher: Output | None = None,
        progress: float = 0.0,
        index: Tensor | None = None,
    ) -> list[Share]:
        """How much each term pulls: the thing to look at when choosing a weight.

        The gradient is that of the weighted term on the student's embedding (through the neck and the head, as they
        are part of the graph), or on its feature map if a term looks there; its norm over the whole batch. Shares add
        up to 1.
        """
        weights, was_training = self.weights(progress), self.training
        self.eval()  # losses with a memory look without remembering
        try:
            values = self._values(self.terms, student, labels, teacher, index)
        finally:
            self.train(was_training)
        weighted = {name: weights[name] * value for name, value in values.items()}
        stages = {term.stage for term in self.terms}
        place = student.feature_map if "feature_map" in stages else student.embedding
        norms = {name: _gradient_norm(value, place, self.gather) for name, value in weighted.items()}
        sizes = {name: abs(float(value.detach())) for name, value in weighted.items()}
        return [
            Share(
                name,
                float(values[name].detach()),
                weights[name],
                _part(sizes[name], sizes),
                norms[name],
                _part(norms[name], norms),
            )
            for name in values
        ]


def _sum(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _value(term: Term, student: Output, labels: Tensor, teacher: Output | None, index: Tensor | None) -> Tensor:
    rows = _stage(student, term, "student")
    options: dict[str, Any] = {}
    if term.learns:
        if teacher is None:
            raise ValueError(f"term {term.name!r} learns from a teacher, and none was given")
        options["ref_emb"] = _stage(teacher, term, "teacher")
    if getattr(term.loss, "needs_index", False):
        options["index"] = index
    with full_precision(rows):
        pairs = None if term.miner is None else term.miner(rows, labels)
        value: Tensor = term.loss(rows, labels, pairs, **options)
    return value


def _stage(output: Output, term: Term, whose: str) -> Tensor:
    rows: Tensor | None = getattr(output, term.stage)
    if rows is None:
        raise ValueError(f"term {term.name!r} needs the {whose}'s {term.stage}, which it does not have")
    return at_least_float32(rows)


def _part(value: float, everything: dict[str, float]) -> float:
    total = sum(everything.values())
    return value / total if total else 0.0


def _gradient_norm(value: Tensor, place: Tensor | None, gather: bool) -> float:
    if not value.requires_grad or place is None:
        return 0.0
    (gradient,) = torch.autograd.grad(value, [place], retain_graph=True, allow_unused=True)
    norm = value.new_zeros(1) if gradient is None else gradient.detach().norm().reshape(1)
    if gather:  # each process holds its own rows' gradient, summed over the equal losses of all processes
        norms = gather_rows(norm)
        norm = norms.norm() / len(norms)
    return float(norm)
