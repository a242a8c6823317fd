"""What the training loop asks of its data and its objective."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from reid_cckd.batch import Batch, Output


class TrainingData(Protocol):
    """Batches as a pure function of the epoch, so that a run can continue in the middle of one."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""

    def image_name(self, index: int, /) -> str:
        """The path of an image, for messages."""


class TrainingObjective(Protocol):
    """A module (`Objective`) that sums weighted terms and can say how much each one pulls."""

    def __call__(
        self, student: Output, labels: Tensor, teacher: Output | None, *, progress: float, index: Tensor
    ) -> dict[str, Tensor]: ...
    def balance(
        self, student: Output, labels: Tensor, teacher: Output | None, progress: float, index: Tensor
    ) -> Sequence[Any]: ...
    def stages(self, progress: float) -> Collection[str]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def shards(self) -> Mapping[nn.Parameter, range]:
        """Parameters of which this process holds a part of the rows, and which."""

    def train(self, mode: bool = True) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...
