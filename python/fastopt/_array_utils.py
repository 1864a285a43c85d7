"""What an array is, to Python, and new ones like it: of its own library, on its device."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastopt import _core

Array = Any  # NumPy, CuPy, torch, or whatever else speaks a protocol that csrc/bind/array.cpp reads
Arrays = Any  # one of them, or a list


def is_array(obj: object) -> bool:
    """Whether ``obj`` is one array rather than a collection of arrays."""
    if isinstance(obj, np.ndarray):
        return True
    if isinstance(obj, (list, tuple, Mapping)):
        return False
    names = ("__dlpack__", "__cuda_array_interface__")
    return any(_has_attr(obj, name) for name in names) or has_numpy_view(obj)


def _has_attr(obj: object, name: str) -> bool:
    """Whether ``obj`` has the attribute, be it one that raises: the core says what."""
    try:
        return hasattr(obj, name)
    except Exception:
        return True


def has_numpy_view(obj: object) -> bool:
    """Whether ``np.asarray`` makes a view of it."""
    if _has_attr(obj, "__array_interface__"):
        return True
    try:
        memoryview(obj)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def library_of(array: Array) -> str:
    """The package of its type, or CuPy or torch where one of theirs is what that is derived from."""
    packages = [kind.__module__.partition(".")[0] for kind in type(array).__mro__]
    return next((name for name in packages if name in {"cupy", "torch"}), packages[0])


def dtype_name(array: Array) -> str:
    """Its dtype as NumPy calls it, whatever the library: ``float32``, not ``torch.float32``."""
    return str(array.dtype).rpartition(".")[2]


def compute_dtype_name(array: Array) -> str:
    """The dtype in which ``array`` is computed with: float64 for float64, float32 for all else."""
    return "float64" if dtype_name(array) == "float64" else "float32"


def full_like(array: Array, fill: float, dtype: str | None = None) -> Array:
    """A new array of the same library, device, shape and order in memory."""
    return _new_like("full_like", array, fill, dtype=dtype)


def empty_like(array: Array) -> Array:
    """The same, with whatever stands in memory."""
    kind = type(array)
    if kind is np.ndarray:
        return np.empty_like(array)
    if kind.__module__ == "cupy" and kind.__name__ == "ndarray" and _is_local_c_contiguous(array):
        return kind(array.shape, array.dtype)  # keeps the host for less long than CuPy's empty_like
    return _new_like("empty_like", array)


def _is_local_c_contiguous(array: Array) -> bool:
    """Whether an array of CuPy's is in row-major order, and on the device that is the current one."""
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
        with array.device:  # else it would be the current one
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
    """Whether a new array can be written to. JAX's never can, but say so only when it is tried."""
    if isinstance(new, np.ndarray) or library_of(new) in {"cupy", "torch"}:
        return True
    try:
        if len(new.shape):
            new[:0] = 0.0  # of which nothing is moved
        else:
            new[...] = new
    except TypeError:
        return False
    return True


def state_like(param: Array, fill: float, dtype: str | None) -> Array:
    """A state of a parameter, of ``dtype`` if that is of 16 bits."""
    return full_like(param, fill, dtype if dtype and _is_16_bit(param) else None)


def _is_16_bit(array: Array) -> bool:
    typed = array if hasattr(array, "dtype") else _view(array)
    return dtype_name(typed) in ("float16", "bfloat16")


def deepcopy_arrays(arrays: Arrays) -> Arrays:
    """Copies of their kind; of a ``memoryview``, which has none, an array of NumPy's."""
    if isinstance(arrays, (list, tuple)):
        return [deepcopy_arrays(array) for array in arrays]
    return np.array(arrays) if isinstance(arrays, memoryview) else copy.deepcopy(arrays)


def result_like(array: Array, role: str, out: Array | None = None) -> Array:
    """Where to write a result: ``out``, or a new array like this one."""
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
