"""Parameters read into copies, and copies written back: all checked first, so that none is written if one
cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt._arrays import beside, computable
from fastopt._params import Array, Params


def arrays_of(params: Any) -> list[Array]:
    """A flat list of the parameters, whatever their form, that their libraries can compute with."""
    layout = Params.read(params)
    if layout.form == "array":
        return [computable("params", layout.arrays[0])]
    return [computable(layout.place("params", i), a) for i, a in enumerate(layout.arrays)]


def check_fit(arrays: list[Array], copies: list[Array], role: str = "params") -> None:
    if len(arrays) != len(copies):
        raise ValueError(f"{role} has {len(arrays)} arrays, expected {len(copies)}")
    for i, (array, kept) in enumerate(zip(arrays, copies, strict=True)):
        found, expected = (tuple(getattr(a, "shape", ())) for a in (array, kept))
        if found != expected:
            raise ValueError(f"{role}[{i}] has shape {found}, expected {expected}")


def write(params: list[Array], values: list[Array]) -> None:
    """``values`` rounded to the dtypes of ``params``, in place."""
    check_fit(params, values)
    for i, array in enumerate(params):
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"params[{i}] is read-only")
    rounded = [beside(array, v, array.dtype) for array, v in zip(params, values, strict=True)]
    for array, value in zip(params, rounded, strict=True):
        array[...] = value
