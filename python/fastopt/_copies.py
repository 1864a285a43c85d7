"""Parameters read into copies, and copies written back: all tried first, so that none is changed if one
cannot be."""

from __future__ import annotations

from typing import Any

from fastopt._arrays import beside, computable, copied, is_floating
from fastopt._like import Array
from fastopt._params import Params


def arrays_of(params: Any) -> list[Array]:
    """A flat list of the parameters, whatever their form, that their libraries can compute with."""
    layout = Params.read(params)
    if layout.form == "array":
        return [computable("params", layout.arrays[0])]
    return [computable(layout.place("params", i), a) for i, a in enumerate(layout.arrays)]


def check_fit(arrays: list[Array], copies: list[Array], role: str = "params") -> None:
    """As many, of the same shapes; of the same dtypes, but that floating point may be rounded."""
    if len(arrays) != len(copies):
        raise ValueError(f"{role} has {len(arrays)} arrays, expected {len(copies)}")
    for i, (array, kept) in enumerate(zip(arrays, copies, strict=True)):
        found, expected = (tuple(getattr(a, "shape", ())) for a in (array, kept))
        if found != expected:
            raise ValueError(f"{role}[{i}] has shape {found}, expected {expected}")
        if not (_dtype(array) == _dtype(kept) or (is_floating(array) and is_floating(kept))):
            raise TypeError(f"{role}[{i}] has dtype {_dtype(array)}, expected {_dtype(kept)}")


def write(params: list[Array], values: list[Array]) -> None:
    """``values`` rounded to the dtypes of ``params``, in place."""
    check_fit(params, values)
    ready = [beside(array, value, array.dtype) for array, value in zip(params, values, strict=True)]
    for i, array in enumerate(params):
        _try_to_write(f"params[{i}]", array)
    for array, value in zip(params, ready, strict=True):
        array[...] = value


def _try_to_write(name: str, array: Array) -> None:
    """Its own values: what refuses them, only its library knows."""
    try:
        array[...] = copied(array)
    except Exception as reason:
        raise ValueError(f"{name} cannot be written to: {reason}") from reason


def _dtype(array: Array) -> str:
    """As NumPy calls it, whatever the library."""
    return str(array.dtype).rpartition(".")[2]
