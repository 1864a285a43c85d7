"""Checks of what the compiled module never sees: counts, options of the classes, checkpoints."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any


def whole(name: str, value: Any) -> int:
    """``value`` as a whole number of either sign, as an axis may be."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None


def count(name: str, value: Any, least: int = 0) -> int:
    """``value`` as a whole number that C++ can count on from."""
    n = whole(name, value)
    if not least <= n < 2**63 - 1:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")
    return n


def word64(name: str, value: Any) -> int:
    n = whole(name, value)
    if not 0 <= n < 2**64:
        raise ValueError(f"{name} must lie in [0, 2**64), got {value!r}")
    return n


def switch(name: str, value: Any) -> bool:
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


def number(name: str, value: Any) -> float:
    """One number, in an array perhaps, as a float."""
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise TypeError(f"{name} must be a number, got {value!r}")


def plain(value: Any) -> Any:
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


def options(owner: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """What is given by keyword is among the options there are."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            raise TypeError(f"{owner} has no option {name!r}; it has {', '.join(valid)}")


def entries(state: dict[str, Any], names: Iterable[str]) -> None:
    """A checkpoint has them."""
    mapping("state", state)
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"state_dict lacks {missing}")


def same_identity(theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    """What a checkpoint must agree in with the object that loads it."""
    mapping("state", theirs)
    for key, value in mine.items():
        if theirs.get(key) != value:
            raise ValueError(f"state_dict has {key} {theirs.get(key)!r}, expected {value!r}")


def same_kind(theirs: dict[str, Any], mine: dict[str, Any], kinds: dict[str, str]) -> None:
    """A rule's name is not its user's: where only that is another, say which options chose it."""
    mapping("state", theirs)
    rules = str(theirs.get("rule")), mine["rule"]
    if theirs.get("optimizer") == mine["optimizer"] and rules[0] != rules[1] and rules[0] in kinds:
        raise ValueError(f"state_dict has {kinds[rules[0]]}, expected {kinds[rules[1]]}")


def same_length(name: str, theirs: Any, mine: Any) -> None:
    if not isinstance(theirs, (list, tuple)):
        raise TypeError(f"state_dict's {name} has type {type(theirs).__name__}, expected a list")
    if len(theirs) != len(mine):
        raise ValueError(f"state_dict's {name} has length {len(theirs)}, expected {len(mine)}")


def same_entries(name: str, theirs: Any, mine: dict[str, Any]) -> None:
    mapping(f"state_dict's {name}", theirs)
    if set(theirs) != set(mine):
        raise ValueError(f"state_dict's {name} has the entries {list(theirs)}, expected {list(mine)}")


def same_arrays(name: str, theirs: list[Any], mine: list[Any]) -> None:
    same_length(name, theirs, mine)
    for i, (a, b) in enumerate(zip(theirs, mine, strict=True)):
        shapes, dtypes = (getattr(a, "shape", None), b.shape), (_dtype(a), _dtype(b))
        for what, (found, expected) in (("shape", shapes), ("dtype", dtypes)):
            if found != expected:
                raise ValueError(f"state_dict's {name}[{i}] has {what} {found}, expected {expected}")


def _dtype(array: Any) -> str:
    """Its name, as one array may be NumPy's copy of another library's: torch.float32 is float32."""
    return str(getattr(array, "dtype", None)).removeprefix("torch.")
