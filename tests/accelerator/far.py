"""A pretend accelerator: tensors of a device named "far", which lie in the host's memory and do not mix with its own.

Code that forgets to bring a tensor to the device, asks numpy for one that lies there, or draws from the wrong generator
fails here as it would on a GPU. The moments at which a GPU would have to be waited for are noted in `WAITS`.

To import this module turns it on, for good.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "far"
WAITS: list[str] = []  # what was waited for, and where
MOVES = ("aten::_to_copy", "aten::to", "aten::cpu")
BY_INDEX = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
READS = ("aten::_local_scalar_dense", "aten::item", "aten::equal")  # the host is to know a number
SIZES = ("aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_consecutive")  # ... or how many


class _Backend(_DummyBackendModule):  # type: ignore[misc]
    """What torch asks a device's module for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False


class Far(Tensor):
    """A tensor of the device; ``near`` is where its numbers are."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, near.size(), dtype=near.dtype, device=DEVICE, **layout)

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self) -> str:
        return f"far {self.near}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.near.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = Far(self.near.detach().clone()).requires_grad_(self.requires_grad)
        return memo[id(self)]

    def tolist(self) -> Any:
        _note("tolist")
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Catches what is to be made on the device of nothing, or of the host's tensors."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(_is_far(leaf) for leaf in pytree.tree_leaves((args, kwargs))):
            return _run(op, args, kwargs)
        return op(*args, **kwargs)


def _is_far(value: Any) -> bool:
    return isinstance(value, Far) or (isinstance(value, torch.device) and value.type == NAME)


def _note(what: str) -> None:
    frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
    ours = [frame for frame in frames if frame.filename != __file__]
    WAITS.append(f"{what} at {ours[-1].filename}:{ours[-1].lineno}")


def _near(value: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, Far) and value.dim() > 0:
        raise RuntimeError(f"a tensor of {tuple(value.shape)} on {value.device} met tensors of {DEVICE}")
    if isinstance(value, torch.Generator) and value.device.type != NAME:
        raise RuntimeError(f"a generator of {value.device} met tensors of {DEVICE}")
    return torch.device("cpu") if isinstance(value, torch.device) else _numbers(value)


def _numbers(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    name = op._schema.name
    if name in MOVES:
        return _moved(op, args, kwargs)
    if name == "aten::copy_":
        return _copied(*args, **kwargs)
    if name in READS + SIZES:
        _note(name)
    if name in BY_INDEX:
        return _indexed(op, args, kwargs)
    return _computed(op, args, kwargs, _near)


def _moved(op: Any, args: Any, kwargs: Any) -> Tensor:
    """A tensor to a device or a type; it is itself where nothing is to be done and no copy was asked for."""
    given = {argument.name: value for argument, value in zip(op._schema.arguments, args, strict=False)} | kwargs
    source, other = args[0], given.get("other")
    wanted = other.device if other is not None else given.get("device")
    dtype = other.dtype if other is not None else given.get("dtype") or source.dtype
    to_far = isinstance(source, Far) if wanted is None else torch.device(wanted).type == NAME
    if op._schema.name == "aten::cpu":
        to_far = False
    crosses = to_far != isinstance(source, Far)
    if crosses and not given.get("non_blocking"):
        _note("copy between devices")
    if op._schema.name == "aten::to" and not crosses and dtype == source.dtype and not given.get("copy"):
        return source
    layout = given.get("memory_format") or torch.preserve_format
    moved = _numbers(source).to(dtype, copy=True, memory_format=layout)
    return Far(moved) if to_far else moved


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(target, Far) != isinstance(source, Far) and not non_blocking:
        _note("copy between devices")
    _numbers(target).copy_(_numbers(source))
    return target


def _indexed(op: Any, args: Any, kwargs: Any) -> Any:
    """By tensors of either device, as on a GPU, where those of the host are brought over and masks are counted."""
    for index in args[1]:
        if isinstance(index, Tensor) and (index.dtype in (torch.bool, torch.uint8) or not isinstance(index, Far)):
            _note("index")
    return _computed(op, args, kwargs, _numbers)


def _computed(op: Any, args: Any, kwargs: Any, near: Callable[[Any], Any]) -> Any:
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    near_args, near_kwargs = pytree.tree_map(near, (args, kwargs))
    leaves = zip(pytree.tree_leaves((args, kwargs)), pytree.tree_leaves((near_args, near_kwargs)), strict=True)
    if any(argument.name == "device" for argument in op._schema.arguments):
        near_kwargs["device"] = torch.device("cpu")
    result = op(*near_args, **near_kwargs)
    written = {id(numbers): tensor for tensor, numbers in leaves if isinstance(tensor, Far)}

    def back(value: Any) -> Any:
        return written.get(id(value), Far(value)) if isinstance(value, Tensor) else value

    return pytree.tree_map(back, result)


def _submit(self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    """What `ThreadPoolExecutor` does, with the device known in the other thread too."""

    def known() -> Any:
        with _Mode():
            return work(*args, **kwargs)

    return _plain_submit(self, known)


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)
_plain_submit = ThreadPoolExecutor.submit
ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign]
# Wrapped tensors have no inference mode.
torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()
_Mode().__enter__()
torch.ones(1).to(DEVICE).requires_grad_().sum().backward()  # autograd's thread of the device is to start here
