"""Weights out of a file of timm, of this toolkit or of another program, under the names that a network has for them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from reid_cckd.errors import CheckpointError

AVERAGED = ("average", "state_dict_ema", "model_ema")  # taken before the weights that they are means of

_scalar = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [  # what programs keep beside their weights: arguments, a score
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "bool")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def weights_for(wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """As many of the ``wanted`` tensors as the file holds, whatever stands before all of their names in it.

    DataParallel writes ``module.conv1.weight``, fast-reid and this toolkit ``backbone.conv1.weight``.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors and plain values, or two networks that fit.
    """
    content = _read(path)
    parts = [*(content.get(key) for key in AVERAGED), content, *content.values()]
    found: dict[str, Tensor] = {}
    for part in parts:
        fitting = _networks_in(part, wanted) if isinstance(part, Mapping) else {}
        best = max(fitting.values(), key=len, default={})
        twins = [prefix for prefix, weights in fitting.items() if len(weights) == len(wanted)]
        if len(best) > len(found):
            if len(twins) > 1:
                raise CheckpointError(
                    f"model.pretrained: {path} holds more than one such network, below {' and '.join(twins)}. Save the "
                    f"tensors of the one you want into a file of their own."
                )
            found = best
    return found


def _networks_in(part: Mapping[Any, Any], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By what stands before the names: the tensors that a part of a file holds."""
    return {
        prefix: {name: part[prefix + name] for name in wanted if isinstance(part.get(prefix + name), Tensor)}
        for prefix in _prefixes(part, next(iter(wanted)))
    }


def _prefixes(part: Mapping[Any, Any], name: str) -> Iterator[str]:
    for key in part:
        before, found, after = str(key).rpartition(name)
        if found and not after:
            yield before


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"model.pretrained: cannot read {path}: it is damaged, or holds more than tensors and plain values, such "
            f"as a whole network. If you trust it: torch.save(torch.load({path.name!r}, weights_only=False)"
            f".state_dict(), 'weights.pth'), and give weights.pth."
        ) from error
    except Exception as error:  # torch and safetensors raise a dozen kinds for damaged files
        raise CheckpointError(f"model.pretrained: cannot read {path}: {error}") from error
    return content if isinstance(content, Mapping) else {}
