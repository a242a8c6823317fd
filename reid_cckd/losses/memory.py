"""A queue of past rows, so that a batch is correlated with more instances than fit into one."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reid_cckd.losses.checks import whole
from reid_cckd.losses.distributed import gather_rows

BLOCK_ROWS = 384  # small batches are put together up to this many rows, so that each matrix product has work to do


class Rows(NamedTuple):
    """Student (n, d), teacher (n, t) and labels (n,) of the same images. Never written to: a backward may need them."""

    student: Tensor
    teacher: Tensor
    labels: Tensor | None

    @property
    def number(self) -> int:
        """Number of images."""
        return len(self.student)

    def newest(self, count: int) -> Rows:
        """The last ``count`` rows."""
        start = self.number - count
        return Rows(self.student[start:], self.teacher[start:], None if self.labels is None else self.labels[start:])

    def first(self, count: int) -> Rows:
        """The first ``count`` rows."""
        labels = None if self.labels is None else self.labels[:count]
        return Rows(self.student[:count], self.teacher[:count], labels)

    def to(self, like: Tensor) -> Rows:
        """The same rows in the precision and on the device of ``like``."""
        labels = None if self.labels is None else self.labels.to(like.device)
        return Rows(self.student.to(like), self.teacher.to(like), labels)


class PairMemory(nn.Module):
    """The last (student, teacher) rows, without gradient, for ``CorrelationCongruenceLoss(memory=...)``.

    They are saved with the checkpoint (`state_dict`). Each `add` is one step of age. With ``torch.distributed``
    running, `add` gathers the rows of all processes, so that all hold the same queue; where the loss was given gathered
    rows already, so that each process comes with all of them, they are remembered once.

    Args:
        size: most rows kept.
        max_age: rows are forgotten after this many further calls of `add`; None keeps them until they are pushed out.
            A student moves, and its old rows are off: early in training a few steps are plenty.

    Raises:
        ValueError: size or max_age below 1; later, rows of another width, or labels in some batches only.
    """

    def __init__(self, size: int, max_age: int | None = None) -> None:
        super().__init__()
        self.size = whole("size", size)
        self.max_age = None if max_age is None else whole("max_age", max_age)
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self._blocks: deque[Rows] = deque()  # the oldest rows first
        self._batches: deque[int] = deque()  # how many rows came with each remembered call of `add`

    def __len__(self) -> int:
        return sum(block.number for block in self._blocks)

    def blocks(self, like: Tensor) -> list[Rows]:
        """The remembered rows, the oldest first, in a few blocks, in the precision and on the device of ``like``."""
        self._blocks = deque(block.to(like) for block in self._blocks)  # moves after a checkpoint was loaded, if ever
        return list(self._blocks)

    @torch.no_grad()
    def add(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> None:
        """Remember the rows of a batch and forget the ones that are too old or too many."""
        batch = _of_all_processes(Rows(student, teacher, labels))
        if self._blocks:
            _check_alike(self._blocks[-1], batch)
        self._append(batch)
        self._batches.append(batch.number)
        self._forget()

    def _append(self, batch: Rows) -> None:
        if self._blocks and self._blocks[-1].number < BLOCK_ROWS:
            batch = _join([self._blocks.pop(), batch])
        self._blocks.append(batch)

    def _forget(self) -> None:
        while self.max_age is not None and len(self._batches) > self.max_age:
            self._batches.popleft()
        while sum(self._batches) - self._batches[0] >= self.size:
            self._batches.popleft()
        surplus = len(self) - min(sum(self._batches), self.size)
        while surplus > 0:
            oldest = self._blocks.popleft()
            if oldest.number > surplus:
                self._blocks.appendleft(oldest.newest(oldest.number - surplus))
            surplus -= oldest.number

    def get_extra_state(self) -> dict[str, Any]:
        """The remembered rows and their ages, as plain tensors and numbers."""
        rows = _join(list(self._blocks))._asdict() if self._blocks else None
        return {"rows": rows, "batches": list(self._batches)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` gave, of a memory of any size and age."""
        self.clear()
        if state["rows"] is not None:
            self._blocks.append(Rows(**state["rows"]))
            self._batches.extend(state["batches"])
            self._forget()

    def extra_repr(self) -> str:
        return f"size={self.size}, max_age={self.max_age}"


def _of_all_processes(mine: Rows) -> Rows:
    """A copy of the rows of all processes, the same in each; once if all processes hold the same, in whatever order."""
    counts = gather_rows(torch.full((1,), mine.number, device=mine.teacher.device))
    labels = None if mine.labels is None else gather_rows(mine.labels)
    rows = Rows(gather_rows(mine.student).clone(), gather_rows(mine.teacher).clone(), labels)
    if len(counts) > 1 and bool((counts == counts[0]).all()):
        prints = rows.teacher.double().sum(dim=1).view(len(counts), -1).sort(dim=1).values
        if bool((prints == prints[0]).all()):
            return rows.first(int(counts[0]))
    return rows


def _join(blocks: list[Rows]) -> Rows:
    student, teacher, labels = zip(*blocks, strict=True)
    return Rows(torch.cat(student), torch.cat(teacher), None if labels[0] is None else torch.cat(labels))


def _check_alike(old: Rows, new: Rows) -> None:
    if (old.labels is None) != (new.labels is None):
        raise ValueError("labels: given for some batches of the memory and not for others")
    for name in ("student", "teacher"):
        width, expected = getattr(new, name).shape[1], getattr(old, name).shape[1]
        if width != expected:
            raise ValueError(f"{name}: rows of width {width}, the memory holds rows of width {expected}")
