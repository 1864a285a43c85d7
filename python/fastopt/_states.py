"""Arrays that a ``load_state_dict`` is given, looked at before anything takes them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt._arrays import computable
from fastopt._params import Array


def arrays_in(state: Mapping[str, Any], name: str) -> list[Array]:
    """The entry, a list of arrays."""
    arrays = state[name]
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(
            f"state_dict's {name} has type {type(arrays).__name__}, expected a list of arrays"
        )
    return [computable(f"state_dict's {name}[{i}]", array) for i, array in enumerate(arrays)]


def require_like(name: str, theirs: Any, mine: Array) -> None:
    """An array of the same shape and dtype, maybe of another library."""
    for what in ("shape", "dtype"):
        found, expected = (_said(what, array) for array in (theirs, mine))
        if found != expected:
            raise ValueError(f"state_dict's {name} has {what} {found}, expected {expected}")


def _said(what: str, array: Any) -> str:
    value = getattr(array, what, None)
    if what == "shape" and value is not None:
        return str(tuple(value))
    return str(value).removeprefix("torch.")
