"""SplitMix64 on torch's signed integers: random bits as a function of numbers alone, the same on every device.

Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
"""

from __future__ import annotations

from torch import Tensor


def signed(word: int) -> int:
    """The 64 lowest bits as torch's int64."""
    return (word + 2**63) % 2**64 - 2**63


GOLDEN = signed(0x9E3779B97F4A7C15)  # the increment
_FIRST, _SECOND = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)


def mixed(state: Tensor) -> Tensor:
    """Every int64 scrambled."""
    state = (state ^ shifted(state, 30)) * _FIRST
    state = (state ^ shifted(state, 27)) * _SECOND
    return state ^ shifted(state, 31)


def shifted(state: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in from the left."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
