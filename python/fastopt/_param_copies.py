"""Parameters read into copies, and copies written back: all tried first, so that none is changed if one
cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastopt._array_api import asarray_like, check_array, copy_array, is_floating
from fastopt._array_utils import Array, dtype_name
from fastopt._params import Params


def read(params: Any) -> Params:
    """The parameters, whatever their form, as arrays that their libraries can compute with."""
    layout = Params.read(params)
    if layout.form == "array":
        return replace(layout, arrays=[check_array("params", layout.arrays[0])])
    arrays = [check_array(layout.place("params", i), a) for i, a in enumerate(layout.arrays)]
    return replace(layout, arrays=arrays)


def in_order(params: Params, kept: Params) -> list[Array]:
    """The parameters in the order of the copies: by name, if they have names, which must be the copies'."""
    _same_length("params", params.arrays, kept)
    if params.names is None or params.names == kept.names:
        return params.arrays
    return kept.by_name(dict(zip(params.names, params.arrays, strict=True)), "params")


def check_fit(arrays: list[Array], kept: Params, role: str = "params") -> None:
    """As many, of the same shapes; of the same dtypes, but that floating point may be rounded."""
    _same_length(role, arrays, kept)
    for i, (array, copy) in enumerate(zip(arrays, kept.arrays, strict=True)):
        name = kept.named(role, i)
        found, expected = (tuple(getattr(a, "shape", ())) for a in (array, copy))
        if found != expected:
            raise ValueError(f"{name} has shape {found}, expected {expected}")
        if not (dtype_name(array) == dtype_name(copy) or (is_floating(array) and is_floating(copy))):
            raise TypeError(f"{name} has dtype {dtype_name(array)}, expected {dtype_name(copy)}")


def _same_length(role: str, arrays: list[Array], kept: Params) -> None:
    if len(arrays) != len(kept.arrays):
        raise ValueError(f"{role} has {len(arrays)} arrays, expected {len(kept.arrays)}")


def write(params: list[Array], kept: Params) -> None:
    """The copies rounded to the dtypes of ``params``, in place."""
    check_fit(params, kept)
    pairs = zip(params, kept.arrays, strict=True)
    ready = [asarray_like(value, array, array.dtype) for array, value in pairs]
    for i, array in enumerate(params):
        _try_to_write(kept.named("params", i), array)
    for array, value in zip(params, ready, strict=True):
        array[...] = value


def _try_to_write(name: str, array: Array) -> None:
    """Its own values: what refuses them, only its library knows."""
    try:
        array[...] = copy_array(array)
    except Exception as reason:
        raise ValueError(f"{name} cannot be written to: {reason}") from reason
