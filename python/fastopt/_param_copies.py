"""Copy parameters and write copies back. Every write is validated first, so that a failure changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastopt._array_api import as_array, asarray_like, copy_array, is_floating
from fastopt._array_utils import Array, dtype_name
from fastopt._params import Params

Labeled = list[tuple[str, Array]]  # arrays, each with the name that messages give it


def read_params(params: Any) -> Params:
    """Parse parameters of any form into arrays that their libraries can compute with."""
    return refresh(Params.parse(params))


def refresh(params: Params) -> Params:
    """Return ``params`` with the arrays as they are now: torch replaces a parameter's memory, shape and dtype
    when ``p.data`` is assigned, as ``model.half()`` does."""
    return replace(params, arrays=[as_array(name, array) for name, array in labeled(params)])


def labeled(params: Params) -> Labeled:
    if params.form == "array":
        return [("params", params.arrays[0])]
    return [(params.label("params", i), array) for i, array in enumerate(params.arrays)]


def match_order(params: Params, copies: Params) -> Labeled:
    """Return the parameters in the order of the copies. If they have names, these must be the copies' names."""
    _check_length("params", params.arrays, copies.arrays)
    if params.names is None or params.names == copies.names:
        return labeled(params)
    by_name = dict(zip(params.names, labeled(params), strict=True))
    return copies.by_name(by_name, "params", reference="the saved copy")


def check_compatible(arrays: Labeled, copies: list[Array], role: str = "params") -> None:
    """Check that ``arrays`` match the copies in number, shape and dtype. Floating-point dtypes may differ."""
    _check_length(role, arrays, copies)
    for (name, array), copy in zip(arrays, copies, strict=True):
        found, expected = (tuple(getattr(a, "shape", ())) for a in (array, copy))
        if found != expected:
            raise ValueError(f"{name} has shape {found}, expected {expected}")
        if not (dtype_name(array) == dtype_name(copy) or (is_floating(array) and is_floating(copy))):
            raise TypeError(f"{name} has dtype {dtype_name(array)}, expected {dtype_name(copy)}")


def _check_length(role: str, arrays: Sequence[Any], copies: list[Array]) -> None:
    if len(arrays) != len(copies):
        raise ValueError(f"{role} has {len(arrays)} arrays, expected {len(copies)}")


def write_params(params: Labeled, copies: list[Array]) -> None:
    """Write the copies into ``params``, in place, rounded to their dtypes."""
    check_compatible(params, copies)
    pairs = list(zip(params, copies, strict=True))
    values = [asarray_like(copy, array, array.dtype) for (_, array), copy in pairs]
    for name, array in params:
        _check_writable(name, array)
    for (_, array), value in zip(params, values, strict=True):
        array[...] = value


def _check_writable(name: str, array: Array) -> None:
    """Write an array's own values to it: only its library can tell whether it is writable."""
    try:
        array[...] = copy_array(array)
    except Exception as reason:
        raise ValueError(f"{name} cannot be written to: {reason}") from reason
