"""Array detection, and creation of arrays like a given one (same library and device)."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt import _core

Array = Any  # of NumPy, CuPy, torch or any library with a protocol that csrc/bind/array.cpp reads
Arrays = Any  # one array, or a list of arrays


def is_array(obj: object) -> bool:
    """Whether ``obj`` is one array rather than a collection of arrays."""
    if isinstance(obj, np.ndarray):
        return True
    if isinstance(obj, (list, tuple, Mapping)):
        return False
    names = ("__dlpack__", "__cuda_array_interface__")
    return any(_has_attr(obj, name) for name in names) or has_numpy_view(obj)


def _has_attr(obj: object, name: str) -> bool:
    """Whether ``obj`` has the attribute. One whose getter raises counts as present, so that the core reports
    the error."""
    try:
        return hasattr(obj, name)
    except Exception:
        return True


def has_numpy_view(obj: object) -> bool:
    """Whether ``np.asarray`` returns a view of ``obj``."""
    if _has_attr(obj, "__array_interface__"):
        return True
    try:
        memoryview(obj)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def library_of(array: Array) -> str:
    """Return the top-level package of the array's type; ``cupy`` or ``torch`` for types derived from theirs."""
    packages = [kind.__module__.partition(".")[0] for kind in type(array).__mro__]
    return next((name for name in packages if name in {"cupy", "torch"}), packages[0])


def dtype_name(array: Array) -> str:
    """Return NumPy's name of the dtype, for every library: ``float32``, not ``torch.float32``."""
    return str(array.dtype).rpartition(".")[2]


def compute_dtype_name(array: Array) -> str:
    """Return the dtype in which ``array`` is computed: float64 for float64, else float32."""
    return "float64" if dtype_name(array) == "float64" else "float32"


def full_like(array: Array, fill: float, dtype: str | None = None) -> Array:
    """Return a new array of the same library, device, shape and memory order, filled with ``fill``."""
    return _new_like("full_like", array, fill, dtype=dtype)


def empty_like(array: Array) -> Array:
    """Like :func:`full_like`, but uninitialized."""
    kind = type(array)
    if kind is np.ndarray:
        return np.empty_like(array)
    if kind.__module__ == "cupy" and kind.__name__ == "ndarray" and _is_local_c_contiguous(array):
        return kind(array.shape, array.dtype)  # less host time than CuPy's empty_like
    return _new_like("empty_like", array)


def _is_local_c_contiguous(array: Array) -> bool:
    """Whether a CuPy array is C-contiguous and on the current device."""
    current = sys.modules["cupy"].cuda.runtime.getDevice()
    return bool(array.flags.c_contiguous and array.data.device_id == current)


def _new_like(make: str, array: Array, *fill: float, dtype: str | None = None) -> Array:
    library = library_of(array)
    if library == "torch":
        torch = sys.modules["torch"]
        detached = array.detach()
        torch_dtype = getattr(torch, dtype) if dtype else detached.dtype
        return getattr(torch, make)(detached, *fill, dtype=torch_dtype)
    if library == "cupy":
        with array.device:  # the default is the current device
            return getattr(sys.modules["cupy"], make)(array, *fill, dtype=dtype)
    if not isinstance(array, np.ndarray) and hasattr(array, "__array_namespace__"):
        return getattr(array.__array_namespace__(), make)(array, *fill, dtype=dtype)
    if hasattr(array, "__cuda_array_interface__"):
        name = type(array).__name__
        raise TypeError(
            f"cannot create another array of type {name} on a CUDA device; pass it as a CuPy array, "
            "cupy.asarray(array)"
        )
    return getattr(np, make)(_view(array), *fill, dtype=dtype, order="K", subok=False)


def _view(array: Array) -> Any:
    return np.asarray(array) if has_numpy_view(array) else np.from_dlpack(array)


def is_mutable(new: Array) -> bool:
    """Whether a new array can be written to. JAX arrays cannot, which only an attempt shows."""
    if isinstance(new, np.ndarray) or library_of(new) in {"cupy", "torch"}:
        return True
    try:
        if len(new.shape):
            new[:0] = 0.0  # an empty slice: nothing is moved
        else:
            new[...] = new
    except TypeError:
        return False
    return True


def state_like(param: Array, fill: float, dtype: str | None) -> Array:
    """Return a state array for ``param``; in ``dtype``, if given and the parameter is 16-bit."""
    return full_like(param, fill, dtype if dtype and _is_16_bit(param) else None)


def _is_16_bit(array: Array) -> bool:
    typed = array if hasattr(array, "dtype") else _view(array)
    return dtype_name(typed) in ("float16", "bfloat16")


def deepcopy_arrays(arrays: Arrays) -> Arrays:
    """Deep-copy one array or a list of arrays. A ``memoryview`` is copied to a NumPy array."""
    if isinstance(arrays, (list, tuple)):
        return [deepcopy_arrays(array) for array in arrays]
    return np.array(arrays) if isinstance(arrays, memoryview) else copy.deepcopy(arrays)


def result_like(array: Array, role: str, out: Array | None = None) -> Array:
    """Return the array to write a result to: ``out``, or a new array like ``array``."""
    if out is not None:
        return out
    if type(array) is np.ndarray:
        return empty_like(array)
    _core.check_array(array, role)
    new = empty_like(array)
    if not is_mutable(new):
        raise TypeError(
            f"{role} has type {type(array).__name__}, and new arrays of this type are read-only; "
            f"pass {role} as a NumPy array, or pass out="
        )
    return new
