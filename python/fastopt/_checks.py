"""Checks of what never reaches the compiled module as a hyper-parameter."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any


def count(name: str, value: Any, least: int = 0) -> int:
    """``value`` as a whole number that C++ can count on from."""
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if not least <= n < 2**63 - 1:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")
    return n


def switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def accumulator(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"initial_accumulator must be a number, got {value!r}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"initial_accumulator must lie in [0, inf), got {value!r}")
    return float(value)
