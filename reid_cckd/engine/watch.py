"""Loss terms of the last steps, left on the device until they are looked at: looking waits for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from reid_cckd.engine.distributed import gather_objects, rank
from reid_cckd.errors import UserError
from reid_cckd.files import write_json


@dataclass(frozen=True)
class Seen:
    """What one step's loss terms were, and the images it saw (their index, on the CPU)."""

    epoch: int
    batch: int
    step: int
    index: Tensor
    values: dict[str, float]

    @property
    def culprits(self) -> list[str]:
        """The terms that are not finite."""
        return [f"{name} {value}" for name, value in self.values.items() if not math.isfinite(value)]


@dataclass
class Watch:
    """Collects steps and reads ``every`` of them at once: one wait for the device, and nothing is lost."""

    every: int = 1
    _waiting: list[tuple[Seen, list[str], Tensor]] = field(default_factory=list)

    def add(self, seen: Seen, terms: Mapping[str, Tensor]) -> None:
        """Note a step without waiting for its numbers."""
        numbers = torch.stack([value.detach().double() for value in terms.values()])
        self._waiting.append((seen, list(terms), numbers))

    @property
    def is_due(self) -> bool:
        """Whether enough steps wait."""
        return len(self._waiting) >= self.every

    def look(self) -> list[Seen]:
        """The steps since the last look with their numbers, in order."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        numbers = iter(torch.cat([values for _, _, values in waiting]).tolist())
        return [
            Seen(seen.epoch, seen.batch, seen.step, seen.index, {name: next(numbers) for name in names})
            for seen, names, _ in waiting
        ]


def not_finite(seen: Seen, folder: Path, name_of: Callable[[int], str]) -> UserError:
    """What to raise for a loss that is not finite; the images of all processes are listed in a file in ``folder``."""
    mine = [name_of(index) for index in seen.index.tolist()]
    names = [name for part in gather_objects(mine) for name in part]
    place = {"epoch": seen.epoch + 1, "batch": seen.batch, "step": seen.step}
    listing = folder / "nonfinite_batch.json"
    if rank() == 0:
        terms = {name: str(value) for name, value in seen.values.items()}
        write_json(listing, {**place, "terms": terms, "images": names})
    return UserError(
        f"The loss is not finite ({', '.join(seen.culprits)}) at epoch {seen.epoch + 1}, batch {seen.batch}: "
        f"{names[0]} and {len(names) - 1} more images, listed in {listing}. Look at them; "
        f"lower optim.lr or the term's weight, or set train.clip_norm, and begin anew in another output=FOLDER. What "
        f"was saved in {folder} is from before this step."
    )
