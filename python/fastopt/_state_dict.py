"""What takes the place of a state, by ``load_state_dict`` or as an attribute, looked at before it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastopt import _checks, _core
from fastopt._array_api import asarray_like, check_array
from fastopt._array_utils import Array, dtype_name, is_array


def check_keys(state: dict[str, Any], names: Iterable[str]) -> None:
    """A checkpoint has them."""
    _checks.mapping("state", state)
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"state_dict lacks the keys {missing}")


def check_identity(theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    """What a checkpoint must agree in with the object that loads it."""
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
    """A rule's name is not its user's: where only that is another, say which options chose it."""
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
    """The entry, a list of arrays."""
    arrays = _as_list(name, state[name])
    return [check_array(f"state_dict's {name}[{i}]", array) for i, array in enumerate(arrays)]


def read_names(state: dict[str, Any], arrays: list[Array]) -> list[Any] | None:
    """Those of the arrays, if they have any."""
    if state.get("names") is None:
        return None
    check_length("names", state["names"], arrays)
    return list(state["names"])


def as_array_list(name: str, value: Any) -> list[Array]:
    """What an attribute is set to, as a list of arrays. One array is no list, though its rows could be."""
    if isinstance(value, (str, Mapping)) or is_array(value) or not isinstance(value, Iterable):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a list of arrays")
    return list(value)


def convert_arrays(name: str, theirs: Any, mine: list[Array]) -> list[Array]:
    """``theirs`` as :func:`convert_array` gives them."""
    check_length(name, theirs, mine)
    pairs = enumerate(zip(theirs, mine, strict=True))
    return [convert_array(f"{name}[{i}]", a, b) for i, (a, b) in pairs]


def convert_array(name: str, theirs: Any, mine: Array) -> Array:
    """An array of the same shape and dtype, maybe of another library, as one of the library of ``mine``."""
    check_same_shape_dtype(name, theirs, mine)
    called = f"state_dict's {name}"
    array = check_array(called, theirs)
    _core.check_array(array, called)
    check_same_shape_dtype(name, array, mine)  # whatever an object says of itself
    return asarray_like(array, mine)


def check_same_shape_dtype(name: str, theirs: Any, mine: Array) -> None:
    """What says that it has the same shape and dtype."""
    for what in ("shape", "dtype"):
        found, expected = (_attr_text(what, array) for array in (theirs, mine))
        if found != expected:
            raise ValueError(f"state_dict's {name} has {what} {found}, expected {expected}")


def _as_list(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"state_dict's {name} has type {type(value).__name__}, expected a list")
    return value


def _attr_text(what: str, array: Any) -> str:
    """As NumPy says it of its own: one array may be a copy of another library's."""
    value = getattr(array, what, None)
    if what == "shape" and isinstance(value, Iterable):
        return str(tuple(value))
    return str(value) if what == "shape" or value is None else dtype_name(array)
