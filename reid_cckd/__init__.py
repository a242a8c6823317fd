"""Correlation congruence knowledge distillation for person re-identification, faces and image retrieval.

The names below are what other projects reuse. Each is imported when it is first asked for, so that the samplers
come without timm and the evaluators without pytorch-metric-learning.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CorrelationCongruenceLoss": "losses",
    "GaussianRBF": "losses",
    "Bilinear": "losses",
    "MMD": "losses",
    "Objective": "losses",
    "ClassUniformSampler": "samplers",
    "SuperclassUniformSampler": "samplers",
    "build_superclasses": "samplers",
    "evaluate_retrieval": "evaluation",
    "evaluate_identification": "evaluation",
    "evaluate_verification": "evaluation",
    "evaluate_classification": "evaluation",
    "load_network": "build",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
