"""What all samplers have in common: epochs, ranks, and going on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import BatchSampler

from reid_cckd.samplers.checks import at_least
from reid_cckd.samplers.stream import BatchStream


class StreamSampler(BatchSampler):
    """A batch sampler whose batches are a pure function of their number in an endless stream.

    With W ranks an epoch is ``batches_per_epoch // W`` steps; step b of epoch e of rank r takes the batch number
    ``(e * steps + b) * W + r``. So ranks are disjoint and equally long, and together they see the same stream for
    any number of ranks. The epoch changes by `set_epoch` only.

    It is a torch ``BatchSampler`` because pytorch-metric-learning, accelerate and Lightning ask for one, and its
    ``sampler`` is itself because there Lightning and accelerate look for the ``set_epoch`` that they call.
    """

    def __init__(
        self, stream: BatchStream, facts: Mapping[str, Any], batches_per_epoch: int | None, rank: int, world_size: int
    ) -> None:
        self.rank, self.world_size = at_least(rank, 0, "rank"), at_least(world_size, 1, "world_size")
        if self.rank >= self.world_size:
            raise ValueError(f"rank {rank} is not below world_size {world_size}")
        super().__init__(self, stream.batch_size, drop_last=True)  # type: ignore[arg-type]
        wanted = batches_per_epoch
        self._batches_wanted = None if wanted is None else at_least(wanted, 1, "batches_per_epoch")
        self._epoch = 0
        self._resume_at = 0
        self._given = 0
        self._use(stream, facts)

    def _use(self, stream: BatchStream, facts: Mapping[str, Any]) -> None:
        batches = self._batches_wanted or stream.batches_per_epoch
        if batches < self.world_size:
            raise ValueError(f"an epoch has {batches} batches, fewer than the {self.world_size} ranks")
        self._stream = stream
        self._facts = {"sampler": type(self).__name__, **facts, "batches_per_epoch": batches}
        self._steps = batches // self.world_size

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration yields."""
        return self._epoch

    def __len__(self) -> int:
        """Batches of an epoch for this rank."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch; once after `load_state_dict`, the rest of it.

        The place is taken at the first ``next``: a DataLoader with workers calls ``iter`` twice and drops one.
        """
        start, self._resume_at = self._resume_at, 0
        self._given = start
        first = (self._epoch * self._steps + start) * self.world_size + self.rank
        stop = (self._epoch + 1) * self._steps * self.world_size
        for batch in self._stream.batches(first, stop, self.world_size):
            self._given += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; naming the present one again keeps the place that `load_state_dict` set."""
        if at_least(epoch, 0, "epoch") != self._epoch:
            self._epoch, self._resume_at, self._given = int(epoch), 0, 0

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """The place in the epoch and what it is a place in.

        ``batches``: how many the training loop of one rank has used. Pass it when a DataLoader with workers
        stands between: it asks for batches ahead, and without it those would be taken for done.
        """
        done = self._given if batches is None else at_least(batches, 0, "batches")
        if done > len(self):
            raise ValueError(f"{done} batches are more than the {len(self)} of an epoch")
        return {"epoch": self._epoch, "batches": done, "world_size": self.world_size, **self._facts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the next iteration yields the rest of that epoch.

        With another number of ranks that epoch begins at another batch of the stream, unless both numbers divide
        ``batches_per_epoch``: then a few batches come twice or not at all.

        Raises:
            ValueError: the state is of other data or settings, or of another number of ranks that had not
                together done a multiple of this one's.
        """
        for name, mine in self._facts.items():
            if name not in state:
                raise ValueError(f"not a state of {type(self).__name__}: it has no {name!r}")
            if state[name] != mine:
                raise ValueError(f"the state is of another run: its {name} is {state[name]!r}, this one's {mine!r}")
        done, rest = divmod(state["batches"] * state["world_size"], self.world_size)
        if rest:
            raise ValueError(
                f"{state['batches']} batches on each of {state['world_size']} ranks cannot be shared out "
                f"among {self.world_size} ranks; go on from another step or with {state['world_size']} ranks"
            )
        self._epoch, self._resume_at = at_least(state["epoch"], 0, "epoch"), min(done, len(self))
        self._given = self._resume_at
