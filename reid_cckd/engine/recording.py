"""A step's forward pass, losses and gradient, recorded once as a CUDA graph and replayed with other images.

A small network asks for thousands of short operations a step, each of which the GPU ends sooner than the host issues
the next. A replay issues them all in one call. What is recorded is what one step did: operations, shapes and places in
memory; numbers that the host made up, such as a weight that changes, would stay as they were.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reid_cckd.batch import Batch, Output
from reid_cckd.engine.randomness import random_state, set_random_state
from reid_cckd.errors import UserError

WARM_UP = 3  # steps before the recording, in which libraries choose their ways and code is compiled

T = TypeVar("T")
Losses = Callable[[Batch, Output | None], dict[str, Tensor]]
Gradients = list[tuple[nn.Parameter, Tensor | None]]


class RecordedStep:
    """``losses(batch, answers)`` of a batch on the device and what the teacher says of it, and their gradient.

    ``answers`` None: there is no teacher, or ``losses`` asks it itself. The parameters of ``learning`` get gradients.
    """

    def __init__(self, losses: Losses, learning: nn.Module, device: torch.device) -> None:
        self.losses, self.learning, self.device = losses, learning, device
        self.replay: Callable[[], None] | None = None

    def fits(self, batch: Batch) -> bool:
        """Whether the recording is of batches of this shape, or still to be made."""
        return self.replay is None or batch.images.shape == self.places[0].shape

    def __call__(self, batch: Batch, answers: Output | None) -> dict[str, Tensor]:
        """The losses, valid until the next call; all parameters have their gradients.

        Raises:
            UserError: the first step cannot be recorded, or does what a replay would not.
        """
        given = [batch.images, batch.labels, batch.index, *(rows for rows in answers or () if rows is not None)]
        if self.replay is None:
            self._record([value.clone() for value in given], answers)
        assert self.replay is not None
        for place, value in zip(self.places, given, strict=True):
            place.copy_(value)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.terms

    def _record(self, places: list[Tensor], answers: Output | None) -> None:
        """Record a step that reads its batch from ``places``."""
        self.places = places
        rows = iter(places[3:])
        told = None if answers is None else answers.each(lambda _: next(rows))
        with self._without_trace():
            try:
                result, self.replay = record(lambda: self._step(Batch(*places[:3]), told), self.device)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(
                    f"train.cuda_graph: a step cannot be recorded ({reason}). The network or a term waits for the "
                    f"device, or its work depends on what it finds there; set train.cuda_graph: false."
                ) from error
        self.terms, self.gradients, changed = result
        if changed:
            raise UserError(
                f"train.cuda_graph: every step changes {', '.join(changed)} on the host, which a replay would leave as "
                f"it was; set train.cuda_graph: false."
            )

    def _step(self, batch: Batch, answers: Output | None) -> tuple[dict[str, Tensor], Gradients, list[str]]:
        """The losses, the gradient of each parameter, and what the step changed on the host."""
        before = kept_by_host(self.learning, self.device)
        self.learning.zero_grad(set_to_none=True)  # so that a gradient is written, not added
        terms = self.losses(batch, answers)
        terms["loss"].backward()
        gradients = [(parameter, parameter.grad) for parameter in self.learning.parameters()]
        changed = differing(before, kept_by_host(self.learning, self.device))
        return {name: value.detach() for name, value in terms.items()}, gradients, changed

    @contextlib.contextmanager
    def _without_trace(self) -> Iterator[None]:
        """Statistics and random generators are afterwards what they were: to record is not to train."""
        kept, state = [buffer.clone() for buffer in self.learning.buffers()], random_state(self.device)
        yield
        for buffer, value in zip(self.learning.buffers(), kept, strict=True):
            buffer.copy_(value)
        set_random_state(self.device, state)


def kept_by_host(module: nn.Module, device: torch.device) -> dict[str, Any]:
    """By name what the host remembers from step to step: attributes of modules, and its random numbers.

    What a tensor holds is remembered by the device, but which tensor it is by the host.
    """
    kept = {
        f"{place}.{name}": value
        for place, part in module.named_modules()
        for name, value in {**vars(part), **part._buffers}.items()
    }
    kept["Python's random numbers"] = hash(random.getstate())
    if device.type != "cpu":
        kept["torch's random numbers"] = hash(torch.get_rng_state().numpy().tobytes())
    return kept


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names whose values are others: plain ones by value, all else by identity."""
    plain = int, float, str, torch.Size
    pairs = [(name, before.get(name), value) for name, value in after.items()]
    return [name for name, old, new in pairs if old is not new and not (isinstance(new, plain) and old == new)]


def record(step: Callable[[], T], device: torch.device) -> tuple[T, Callable[[], None]]:
    """What ``step`` returns, tensors that ``replay`` writes anew, and ``replay``."""
    with torch.cuda.device(device):  # of which alone a graph is recorded
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # threads that pin batches go on meanwhile
            result = step()
    return result, graph.replay


@contextlib.contextmanager
def beside(device: torch.device) -> Iterator[Callable[[], None]]:
    """Work that a GPU may do at the same time as what follows, up to the call of what this gives."""
    if device.type != "cuda":
        yield lambda: None
        return
    here, there = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    there.wait_stream(here)
    with torch.cuda.stream(there):
        yield lambda: here.wait_stream(there)
