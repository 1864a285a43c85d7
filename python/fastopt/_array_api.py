"""What is no kernel's work is done by the arrays' own library, under the names of the array API standard."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastopt._array_utils import Array, dtype_name, full_like, has_numpy_view, is_mutable, library_of


def check_array(name: str, array: Any) -> Array:
    """``array`` itself where its library can compute; torch's without its graph, a buffer as NumPy's view."""
    if _has_mask(array):  # which would be lost on the way
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
    """Whether it is one of NumPy's masked arrays: by name, as their module is loaded with the first of them."""
    kinds = type(array).__mro__
    return any(k.__name__ == "MaskedArray" and k.__module__.startswith("numpy.ma") for k in kinds)


def detach(array: Array) -> Array:
    """``array`` to be read only: what requires a gradient of torch's gets none from here."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def namespace(array: Array) -> Any:
    """The functions that compute with ``array``, which :func:`check_array` gave."""
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
    """``values``, of the host or already of the library of ``array``, in that library and on its device."""
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
    """``array``, or a sequence of numbers, as an array of NumPy."""
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):  # CuPy's
        array = array.get()
    elif hasattr(array, "cpu"):  # torch's
        array = array.detach().cpu()
        if dtype_name(array) == "bfloat16":  # of which it gives NumPy the bits alone
            return array.view(sys.modules["torch"].int16).numpy().view(ml_dtype("bfloat16"))
    return np.asarray(array)


def _numpy_to_torch(array: Any) -> Array:
    """An array of NumPy's as torch's; torch complains of memory that is read-only or in reversed order."""
    torch, array = sys.modules["torch"], np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)  # on the CPU, whatever the default device


def ml_dtype(name: str) -> np.dtype[Any]:
    """A dtype that NumPy has from another package, bfloat16 for one."""
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
    """Whether it holds real numbers; 16-bit ones of ml_dtypes, which NumPy counts as void, too."""
    return dtype_name(array) in FLOATING_DTYPES


def check_floating(name: str, array: Any) -> Array:
    array = check_array(name, array)
    if not is_floating(array):
        raise TypeError(f"{name} has dtype {array.dtype}, {EXPECTED_FLOATING}")
    return array


def copy_array(array: Any, dtype: str | None = None) -> Array:
    """A new array with the same values, its own order in memory, and no autograd graph."""
    new = full_like(array, 0.0, dtype)
    if not is_mutable(new):
        return namespace(array).asarray(array, dtype=new.dtype, copy=True)
    new[...] = check_array("array", array)
    return new


def take_rows(array: Array, rows: Any) -> Array:
    """Samples by a slice or by their numbers, an array of NumPy."""
    if isinstance(array, np.ndarray) or isinstance(rows, slice):
        return array[rows]
    return namespace(array).take(array, asarray_like(rows, array), axis=0)
