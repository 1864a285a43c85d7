"""Parameters read into copies, and copies written back: all tried first, so that none is changed if one
cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastopt._array_api import asarray_like, check_array, copy_array, is_floating
from fastopt._array_utils import Array, dtype_name
from fastopt._params import Params


def read_params(params: Any) -> Params:
    """The parameters, whatever their form, as arrays that their libraries can compute with."""
    parsed = Params.parse(params)
    if parsed.form == "array":
        return replace(parsed, arrays=[check_array("params", parsed.arrays[0])])
    arrays = [check_array(parsed.label("params", i), a) for i, a in enumerate(parsed.arrays)]
    return replace(parsed, arrays=arrays)


def match_order(params: Params, copies: Params) -> list[Array]:
    """The parameters in the order of the copies: by name, if they have names, which must be the copies'."""
    _check_length("params", params.arrays, copies)
    if params.names is None or params.names == copies.names:
        return params.arrays
    by_name = dict(zip(params.names, params.arrays, strict=True))
    return copies.by_name(by_name, "params", reference="what is kept")


def check_compatible(arrays: list[Array], copies: Params, role: str = "params") -> None:
    """As many, of the same shapes; of the same dtypes, but that floating point may be rounded."""
    _check_length(role, arrays, copies)
    for i, (array, copy) in enumerate(zip(arrays, copies.arrays, strict=True)):
        name = copies.item_label(role, i)
        found, expected = (tuple(getattr(a, "shape", ())) for a in (array, copy))
        if found != expected:
            raise ValueError(f"{name} has shape {found}, expected {expected}")
        if not (dtype_name(array) == dtype_name(copy) or (is_floating(array) and is_floating(copy))):
            raise TypeError(f"{name} has dtype {dtype_name(array)}, expected {dtype_name(copy)}")


def _check_length(role: str, arrays: list[Array], copies: Params) -> None:
    if len(arrays) != len(copies.arrays):
        raise ValueError(f"{role} has {len(arrays)} arrays, expected {len(copies.arrays)}")


def write_params(params: list[Array], copies: Params) -> None:
    """The copies rounded to the dtypes of ``params``, in place."""
    check_compatible(params, copies)
    pairs = zip(params, copies.arrays, strict=True)
    ready = [asarray_like(value, array, array.dtype) for array, value in pairs]
    for i, array in enumerate(params):
        _check_writable(copies.item_label("params", i), array)
    for array, value in zip(params, ready, strict=True):
        array[...] = value


def _check_writable(name: str, array: Array) -> None:
    """Its own values: what refuses them, only its library knows."""
    try:
        array[...] = copy_array(array)
    except Exception as reason:
        raise ValueError(f"{name} cannot be written to: {reason}") from reason
