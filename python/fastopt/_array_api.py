"""Array operations outside the kernels, done by the array's own library through the array API standard."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastopt._array_utils import Array, dtype_name, full_like, has_numpy_view, is_mutable, library_of


def as_array(name: str, array: Any) -> Array:
    """Return an array that its library can compute with: a torch tensor detached, a buffer as a NumPy view,
    any other array as it is."""
    if _has_mask(array):  # the mask would be lost
        raise TypeError(f"{name} has a mask, expected a plain array")
    if isinstance(array, np.ndarray):
        return array
    if library_of(array) == "torch" and hasattr(array, "detach"):
        return array.detach()
    if library_of(array) == "cupy" or hasattr(array, "__array_namespace__"):
        return array
    if has_numpy_view(array):
        return np.asarray(array)
    raise TypeError(f"{name} has type {type(array).__name__}, expected an array")


def _has_mask(array: Any) -> bool:
    """Whether ``array`` is a masked array. Checked by name, as NumPy imports ``numpy.ma`` only on use."""
    kinds = type(array).__mro__
    return any(k.__name__ == "MaskedArray" and k.__module__.startswith("numpy.ma") for k in kinds)


def detach(array: Array) -> Array:
    """Return ``array`` for reading: a torch tensor that requires grad is detached."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def namespace(array: Array) -> Any:
    """Return the array API namespace of ``array``, which :func:`as_array` returned."""
    if isinstance(array, np.ndarray):
        return np
    if library_of(array) == "cupy":
        return sys.modules["cupy"]
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    try:
        from array_api_compat import array_namespace
    except ImportError:
        raise ImportError(
            f"arrays of {library_of(array)} require array-api-compat, which is not installed: "
            "pip install 'fastopt[arrays]'"
        ) from None
    return array_namespace(array)


def asarray_like(values: Any, array: Array, dtype: Any = None) -> Array:
    """Convert ``values`` (NumPy, a sequence or already of the library of ``array``) to an array of that library
    on the device of ``array``."""
    same_type = type(values) is type(array)
    if same_type and dtype is None:
        return values
    library = namespace(array)
    values = values if same_type else to_numpy(values)
    if library is np or library_of(array) == "cupy":
        return library.asarray(values, dtype=dtype)
    if library_of(array) == "torch" and not same_type:
        values = _numpy_to_torch(values)
    return library.asarray(values, dtype=dtype, device=array.device)


def to_numpy(array: Any) -> Any:
    """Convert an array of any library, or a sequence of numbers, to a NumPy array on the host."""
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):  # CuPy's
        array = array.get()
    elif hasattr(array, "cpu"):  # torch's
        array = array.detach().cpu()
        if dtype_name(array) == "bfloat16":  # torch exports it to NumPy only as raw bits
            return array.view(sys.modules["torch"].int16).numpy().view(ml_dtype("bfloat16"))
    return np.asarray(array)


def _numpy_to_torch(array: Any) -> Array:
    """Convert a NumPy array to a torch tensor; torch does not take read-only memory or negative strides."""
    torch, array = sys.modules["torch"], np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)  # on the CPU, whatever the default device


def ml_dtype(name: str) -> np.dtype[Any]:
    """Return a NumPy dtype, such as bfloat16, that the package ml_dtypes defines."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f"{name} in NumPy requires ml_dtypes, which is not installed: pip install ml_dtypes"
        ) from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


FLOATING_DTYPES = "float16", "bfloat16", "float32", "float64"
EXPECTED_FLOATING = f"expected {', '.join(FLOATING_DTYPES[:-1])} or {FLOATING_DTYPES[-1]}"


def is_floating(array: Array) -> bool:
    """Whether it has one of the floating-point dtypes, including bfloat16, which NumPy counts as void."""
    return dtype_name(array) in FLOATING_DTYPES


def check_floating(name: str, array: Any) -> Array:
    array = as_array(name, array)
    if not is_floating(array):
        raise TypeError(f"{name} has dtype {array.dtype}, {EXPECTED_FLOATING}")
    return array


def copy_array(array: Any, dtype: str | None = None) -> Array:
    """Return a copy with the same values and memory order and without an autograd graph."""
    new = full_like(array, 0.0, dtype)
    if not is_mutable(new):
        return namespace(array).asarray(array, dtype=new.dtype, copy=True)
    new[...] = as_array("array", array)
    return new


def take_rows(array: Array, rows: Any) -> Array:
    """Select samples by a slice or by a NumPy array of their indices."""
    if isinstance(array, np.ndarray) or isinstance(rows, slice):
        return array[rows]
    return namespace(array).take(array, asarray_like(rows, array), axis=0)
