"""Checks of what the compiled module never sees: counts, options of the classes, checkpoints."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any


def integer(name: str, value: Any) -> int:
    """``value`` as a whole number of either sign, as an axis may be; of no type but Python's own."""
    try:
        if not isinstance(value, bool):  # which Python takes for 0 or 1, and nobody means
            return int(operator.index(value))
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer, got {value!r}")


def count(name: str, value: Any, least: int = 0) -> int:
    """``value`` as a whole number that C++ can count on from."""
    n = integer(name, value)
    if n < least:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")
    if n >= 2**62:
        raise ValueError(f"{name} must be less than 2**62, got {value!r}")
    return n


def axis(value: Any) -> int:
    """``axis`` as C++ can take it, of the most axes there are."""
    n = integer("axis", value)
    if not -64 <= n < 64:
        raise ValueError(f"axis must lie in [-64, 64), got {value!r}")
    return n


def uint64(name: str, value: Any) -> int:
    n = integer(name, value)
    if not 0 <= n < 2**64:
        raise ValueError(f"{name} must lie in [0, 2**64), got {value!r}")
    return n


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def real(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """``value`` as a float within the interval, written as in the message."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    x, (low, high) = float(value), map(float, interval[1:-1].split(","))
    above = x >= low if interval[0] == "[" else x > low
    below = x <= high if interval[-1] == "]" else x < high
    if not (above and below):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return x


def scalar(name: str, value: Any) -> float:
    """One number, in an array perhaps, as a float."""
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise TypeError(f"{name} must be a number, got {value!r}")


def builtin(value: Any) -> Any:
    """A checked value to keep: what another type holds its owner may change, and no checkpoint takes."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    return str.__str__(value) if isinstance(value, str) else float(value)


def accumulator(value: Any) -> float:
    return real("initial_accumulator", value, "[0, inf)")


def pair(name: str, value: Any) -> tuple[Any, Any]:
    try:
        a, b = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair, got {value!r}") from None
    return a, b


def choice(name: str, value: Any, valid: Iterable[str | None]) -> str:
    valid = tuple(valid)
    if not isinstance(value, (str, type(None))) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}")
    return str(value)


def mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a dict")


def option_names(owner: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """What is given by keyword is among the options there are."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            raise TypeError(f"{owner} has no option {name!r}; it has {', '.join(valid)}")
