"""A queue of past rows, so that a batch is correlated with more instances than fit into one."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from reid_cckd.losses.distributed import gather_rows


class PairMemory(nn.Module):
    """The last ``size`` (student, teacher) rows, without gradient, kept with the checkpoint (`state_dict`).

    Each `add` is one step of age. With ``torch.distributed`` running, the rows of all processes are added on each, so
    that all hold the same queue. Rows stay where they were written: adding costs the batch, reading costs nothing.

    Args:
        size: most rows kept; a batch larger than that leaves its last rows.
        max_age: rows are forgotten after this many further calls of `add`; None keeps them until they are pushed out.
            A student moves, and its old rows are off: early in training a few steps are plenty.

    Raises:
        ValueError: size or max_age below 1; later, rows of another width, or labels in some batches only.
    """

    def __init__(self, size: int, max_age: int | None = None) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be 1 or more, got {size}")
        if max_age is not None and max_age < 1:
            raise ValueError(f"max_age must be 1 or more, or None, got {max_age}")
        self.size, self.max_age = size, max_age
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self._columns: list[Tensor | None] = [None, None, None]  # student, teacher, labels: rings of `size` rows
        self._batches: deque[int] = deque()  # rows of each remembered call of `add`, the oldest first
        self._next = 0  # where in the rings the next row goes

    def __len__(self) -> int:
        return min(sum(self._batches), self.size)

    def parts(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """The remembered (student, teacher, labels) rows as at most two contiguous views, the oldest first."""
        start, count = (self._next - len(self)) % self.size, len(self)
        first = slice(start, min(start + count, self.size))
        second = slice(0, count - (first.stop - first.start))
        return [self._view(part) for part in (first, second) if part.stop > part.start]

    @torch.no_grad()
    def add(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> None:
        """Remember the rows of a batch: student (n, d), teacher (n, t), labels (n,) or None."""
        rows = [None if column is None else gather_rows(column.detach()) for column in (student, teacher, labels)]
        self._check(rows)
        self._batches.append(self._write(rows))
        self._forget()

    def _write(self, rows: list[Tensor | None]) -> int:
        assert rows[0] is not None
        count = len(rows[0])
        place = torch.arange(self._next, self._next + count, device=rows[0].device)[-self.size :] % self.size
        for number, column in enumerate(rows):
            ring = self._columns[number]
            if column is None:
                continue
            if ring is None or not len(self):
                ring = self._columns[number] = column.new_zeros(self.size, *column.shape[1:])
            ring[place] = column[-self.size :].to(ring.dtype)
        self._next = (self._next + count) % self.size
        return count

    def _forget(self) -> None:
        too_old = 0 if self.max_age is None else len(self._batches) - self.max_age
        for _ in range(too_old):
            self._batches.popleft()
        while sum(self._batches) - self._batches[0] >= self.size:
            self._batches.popleft()

    def _view(self, part: slice) -> tuple[Tensor, Tensor, Tensor | None]:
        student, teacher, labels = self._columns
        assert student is not None
        assert teacher is not None
        return student[part], teacher[part], None if labels is None else labels[part]

    def _check(self, rows: list[Tensor | None]) -> None:
        for name, ring, column in zip(("student", "teacher", "labels"), self._columns, rows, strict=True):
            if not len(self):
                continue
            if (ring is None) != (column is None):
                raise ValueError(f"{name}: given for some batches of the memory and not for others")
            if ring is not None and column is not None and ring.shape[1:] != column.shape[1:]:
                raise ValueError(f"{name}: rows of width {column.shape[1]}, the memory holds width {ring.shape[1]}")

    def get_extra_state(self) -> dict[str, Any]:
        """The remembered rows, the oldest first, and how many came with each `add`."""
        parts = self.parts()
        names = ("student", "teacher", "labels")
        columns = {
            name: None if not parts or parts[0][number] is None else torch.cat([part[number] for part in parts])
            for number, name in enumerate(names)
        }
        return {**columns, "batches": list(self._batches)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` gave, of a memory of any size."""
        self.clear()
        rows = [state[name] for name in ("student", "teacher", "labels")]
        if rows[0] is not None:
            self._write(rows)
            self._batches.extend(state["batches"])
            self._forget()
