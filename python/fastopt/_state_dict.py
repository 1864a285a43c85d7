"""Validation of state passed to ``load_state_dict`` or assigned as an attribute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastopt import _checks, _core
from fastopt._array_api import as_array, asarray_like
from fastopt._array_utils import Array, dtype_name, is_array


def check_keys(state: dict[str, Any], names: Iterable[str]) -> None:
    """Check that a state has the keys ``names``."""
    _checks.mapping("state", state)
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"state_dict lacks the keys {missing}")


def check_identity(theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    """Check that the entries of a state equal those of the object that loads it."""
    _checks.mapping("state", theirs)
    for key, value in mine.items():
        if (found := theirs.get(key)) != value:
            if key == "optimizer" and found is None:
                raise ValueError(
                    "state_dict has no key 'optimizer', expected the state of an optimizer"
                )
            if key == "names" and found is None:
                raise ValueError(f"state_dict is of parameters without names, expected names {value!r}")
            if key == "names" and value is None:
                raise ValueError(f"state_dict has names {found!r}, expected parameters without names")
            raise ValueError(f"state_dict has {key} {found!r}, expected {value!r}")


def check_rule(theirs: dict[str, Any], mine: dict[str, Any], descriptions: dict[str, str]) -> None:
    """If only the rule differs, report the options that select it (such as ``amsgrad=True``), as users do not
    see the names of rules."""
    _checks.mapping("state", theirs)
    rule, expected = str(theirs.get("rule")), mine["rule"]
    if theirs.get("optimizer") == mine["optimizer"] and rule != expected and rule in descriptions:
        raise ValueError(f"state_dict has {descriptions[rule]}, expected {descriptions[expected]}")


def check_length(name: str, theirs: Any, mine: Any) -> None:
    if len(_as_list(name, theirs)) != len(mine):
        raise ValueError(f"state_dict's {name} has length {len(theirs)}, expected {len(mine)}")


def check_same_keys(name: str, theirs: Any, mine: dict[str, Any]) -> None:
    _checks.mapping(name, theirs)
    if set(theirs) != set(mine):
        raise ValueError(f"{name} has the keys {list(theirs)}, expected {list(mine)}")


# ---- arrays ----


def read_arrays(state: dict[str, Any], name: str) -> list[Array]:
    """Return the entry ``name``, a list of arrays."""
    arrays = _as_list(name, state[name])
    return [as_array(f"state_dict's {name}[{i}]", array) for i, array in enumerate(arrays)]


def read_names(state: dict[str, Any], arrays: list[Array]) -> list[Any] | None:
    """Return the names of the arrays, if the state has any."""
    if state.get("names") is None:
        return None
    check_length("names", state["names"], arrays)
    return list(state["names"])


def as_array_list(name: str, value: Any) -> list[Array]:
    """Return the value assigned to an attribute as a list of arrays. A single array is rejected, although it is
    an iterable of its rows."""
    if isinstance(value, (str, Mapping)) or is_array(value) or not isinstance(value, Iterable):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a list of arrays")
    return list(value)


def convert_arrays(name: str, theirs: Any, mine: list[Array]) -> list[Array]:
    """Check a list of arrays against ``mine`` and convert it by :func:`convert_array`."""
    check_length(name, theirs, mine)
    pairs = enumerate(zip(theirs, mine, strict=True))
    return [convert_array(f"{name}[{i}]", a, b) for i, (a, b) in pairs]


def convert_array(name: str, theirs: Any, mine: Array) -> Array:
    """Convert an array of the same shape and dtype, perhaps of another library, to the library of ``mine``."""
    check_same_shape_dtype(name, theirs, mine)
    called = f"state_dict's {name}"
    array = as_array(called, theirs)
    _core.check_array(array, called)
    check_same_shape_dtype(name, array, mine)  # the object's own attributes may be wrong
    return asarray_like(array, mine)


def check_same_shape_dtype(name: str, theirs: Any, mine: Array) -> None:
    """Check that the attributes ``shape`` and ``dtype`` are those of ``mine``."""
    for what in ("shape", "dtype"):
        found, expected = (_attr_text(what, array) for array in (theirs, mine))
        if found != expected:
            raise ValueError(f"state_dict's {name} has {what} {found}, expected {expected}")


def _as_list(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"state_dict's {name} has type {type(value).__name__}, expected a list")
    return value


def _attr_text(what: str, array: Any) -> str:
    """Return an attribute as NumPy prints it, as the arrays may be of different libraries."""
    value = getattr(array, what, None)
    if what == "shape" and isinstance(value, Iterable):
        return str(tuple(value))
    return str(value) if what == "shape" or value is None else dtype_name(array)
