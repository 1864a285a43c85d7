"""Checks of Python arguments that the compiled module does not see: counts, options of classes, checkpoints."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def integer(name: str, value: Any) -> int:
    """Return `value` as an int of either sign. A bool is rejected, although Python counts it as 0 or 1."""
    try:
        if not isinstance(value, bool):
            return int(operator.index(value))
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer, got {value!r}")


def count(name: str, value: Any, least: int = 0) -> int:
    """Return `value` as an int in [least, 2**62); larger counts could overflow in C++."""
    n = integer(name, value)
    if n < least:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")
    if n >= 2**62:
        raise ValueError(f"{name} must be less than 2**62, got {value!r}")
    return n


def axis(value: Any) -> int:
    """Return `value` as an axis that fits C++; NumPy allows at most 64 axes."""
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
    """Return `value`, Python's or NumPy's, as Python's bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def real(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """Return `value` as a float in `interval`, which is written as in the message: ``"[0, 1)"``."""
    x = _as_float(name, value)
    low, high = map(float, interval[1:-1].split(","))
    above = x >= low if interval[0] == "[" else x > low
    below = x <= high if interval[-1] == "]" else x < high
    if not (above and below):
        raise ValueError(f"{name} must lie in {interval}, got {value!r}")
    return x


def scalar(name: str, value: Any) -> float:
    """Return `value` as a float, which may be NaN or infinite; an integer beyond all floats is rejected."""
    x = _as_float(name, value)
    if x != x and isinstance(value, int):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return x


def _as_float(name: str, value: Any) -> float:
    """Return a number or a 0-d array as a float, by the rule that the compiled module has for
    hyper-parameters; NaN for an integer beyond all floats."""
    # float() reads text, too, and a bool as 0 or 1.
    if (hasattr(value, "__float__") or hasattr(value, "__index__")) and not _is_bool(value):
        try:
            return float(value)
        except OverflowError:
            return float("nan")
        except (TypeError, ValueError, RuntimeError):  # the last is torch's for several elements
            pass
    raise TypeError(f"{name} must be a number, got {value!r}")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def builtin(value: Any) -> Any:
    """Convert a checked value to a built-in type, which its owner cannot change and a checkpoint can store."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    return str.__str__(value) if isinstance(value, str) else float(value)


def accumulator(value: Any) -> float:
    return real("initial_accumulator", value, "[0, inf)")


def pair(name: str, value: Any) -> tuple[Any, Any]:
    try:
        a, b = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a pair, got {value!r}") from None
    return a, b


def choice(name: str, value: Any, valid: Iterable[str | None]) -> Any:
    """Return `value`, a string or None, if it is one of `valid`."""
    valid = tuple(valid)
    if not isinstance(value, (str, type(None))) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}")
    return value if value is None else str(value)


def mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a dict")


# What other libraries call options, and what to write instead.
_OTHER_NAMES = {
    ("SGD", "momentum"): "use fastopt.Momentum or fastopt.Nesterov",
    ("sgd_step", "momentum"): "use momentum_step or nesterov_step",
    ("RMSprop", "alpha"): "torch's alpha is rho here",
}


def option_names(owner: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """Check that all keywords in `given` are options that exist."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            hint = _OTHER_NAMES.get((owner, name))
            raise TypeError(
                f"{owner} has no option {name!r}; it has {', '.join(valid)}"
                + (f"; {hint}" if hint else "")
            )
