"""Rows cut into parts of a size that keeps a processor busy and its caches full."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reid_cckd.losses.kernels import inverse
from reid_cckd.scratch import Scratch

TILE_ROWS, TILE_COLUMNS = 512, 1024  # on CPU: low tiles waste little beside the diagonal, large ones mean few calls
EVEN = 32  # a matrix product of so many rows or a multiple of them is the fastest
COLUMN_ELEMENTS = 2**21  # embeddings that stand for the columns of a tile take at most 8 MB, for its rows a quarter
ACCELERATOR_TILE = 2048, 4096  # keeps an accelerator busy while the calls for the next are made; four of 32 MB are held
MODERATE = 1e15  # rows that are no longer have dot products that fit float32
_scratch = Scratch()


class Piece(NamedTuple):
    """Some rows, and what their dot products are still to be multiplied by, (rows, 1)."""

    rows: Tensor
    factors: Tensor

    def part(self, first: int, last: int | None = None) -> Piece:
        """Rows ``first`` ... ``last``."""
        return Piece(self.rows[first:last], self.factors[first:last])


class Rows:
    """Rows of which some can be had at unit length, without a copy of all of them.

    ``blocks`` are slices that cover all rows, as high as a tile; ``groups`` are runs of blocks, as many as it is wide.
    ``name`` tells the memory of two `Rows` apart. With ``late`` rows of moderate length come as they are, with factors:
    on CPU it takes long to pass rows that one core has just scaled to another.
    """

    def __init__(self, rows: Tensor, normalize: bool, late: bool, tile: tuple[int, int], name: str) -> None:
        self.rows, self.name = rows, name
        self.blocks, self.groups = (slices(len(rows), size) for size in tile)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True) if normalize else None
        self.scale = None if norms is None else inverse(norms)
        self.late = late and norms is not None and bool(norms.max() < MODERATE)
        self.factors = self.scale if self.scale is not None and self.late else rows.new_ones(len(rows), 1)

    def block(self, index: slice) -> Piece:
        """One of ``blocks``; valid until the next one is asked for."""
        return Piece(self._scaled(index, "block"), self.factors[index])

    def group(self, index: slice) -> Piece:
        """One of ``groups``; valid until the next one is asked for."""
        return Piece(self._scaled(index, "group"), self.factors[index])

    def _scaled(self, index: slice, part: str) -> Tensor:
        rows = self.rows[index]
        if self.scale is None or self.late:
            return rows
        return torch.mul(rows, self.scale[index], out=_scratch.take(f"{self.name} {part}", rows.shape, rows))

    def chain_(self, gradient: Tensor) -> None:
        """Turn the gradient of the scaled rows, times their factors, into that of the rows as they are, in place."""
        if self.scale is None:
            return
        for index in self.blocks:
            rows, scale, part = self.rows[index], self.scale[index], gradient[index]
            products = torch.mul(rows, part, out=_scratch.take(f"{self.name} block", rows.shape, rows))
            part.addcmul_(rows, products.sum(dim=1, keepdim=True).mul_(scale).mul_(scale), value=-1)
            if not self.late:
                part.mul_(scale)


def slices(count: int, size: int) -> list[slice]:
    """Slices of ``size`` that cover 0 ... count; the last may be shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def tile_of(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """Rows and columns of a tile: parts of all rows of about one height, several of many, and a multiple of it."""
    count, width = len(student), max(student.shape[1], teacher.shape[1], 1)
    (rows, columns), parts = ACCELERATOR_TILE, 2
    if student.device.type == "cpu":
        rows = min(TILE_ROWS, max(COLUMN_ELEMENTS // (4 * width), 1))
        columns, parts = min(TILE_COLUMNS, COLUMN_ELEMENTS // width), 4
    rows = max(min(rows, count // parts), rows // 2, 1)
    rows = math.ceil(count / math.ceil(count / rows) / EVEN) * EVEN
    return rows, math.ceil(columns / rows) * rows
