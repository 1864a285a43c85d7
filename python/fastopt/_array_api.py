"""What is no kernel's work is done by the arrays' own library, under the names of the array API standard."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastopt._array_utils import Array, full_like, is_mutable, is_viewable, library_of


def computable(name: str, array: Any) -> Array:
    """``array`` itself where its library can compute; torch's without its graph, a buffer as NumPy's view."""
    if _has_mask(array):  # which would be lost on the way
        raise TypeError(f"{name} has a mask, expected a plain array")
    if isinstance(array, np.ndarray):
        return array
    if library_of(array) == "torch" and hasattr(array, "detach"):
        return array.detach()
    if library_of(array) == "cupy" or hasattr(array, "__array_namespace__"):
        return array
    if is_viewable(array):
        return np.asarray(array)
    raise TypeError(f"{name} has type {type(array).__name__}, expected an array")


def _has_mask(array: Any) -> bool:
    """Whether it is one of NumPy's masked arrays: by name, as their module is loaded with the first of them."""
    kinds = type(array).__mro__
    return any(k.__name__ == "MaskedArray" and k.__module__.startswith("numpy.ma") for k in kinds)


def without_graph(array: Array) -> Array:
    """``array`` to be read only: what requires a gradient of torch's gets none from here."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def namespace(array: Array) -> Any:
    """The functions that compute with ``array``, which :func:`computable` gave."""
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
            f"{library_of(array)}'s arrays are computed with through array-api-compat, which is not "
            "installed: pip install 'fastopt[arrays]'"
        ) from None
    return array_namespace(array)


def beside(array: Array, values: Any, dtype: Any = None) -> Array:
    """``values``, of the host or already of the library of ``array``, in that library and on its device."""
    own = type(values) is type(array)
    if own and dtype is None:
        return values
    library = namespace(array)
    values = values if own else on_host(values)
    if library is np or library_of(array) == "cupy":
        return library.asarray(values, dtype=dtype)
    if library_of(array) == "torch" and not own:
        values = _torchs(values)
    return library.asarray(values, dtype=dtype, device=array.device)


def on_host(array: Any) -> Any:
    """``array``, or a sequence of numbers, as an array of NumPy."""
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):  # CuPy's
        array = array.get()
    elif hasattr(array, "cpu"):  # torch's
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":  # of which it gives NumPy the bits alone
            return array.view(sys.modules["torch"].int16).numpy().view(extended("bfloat16"))
    return np.asarray(array)


def _torchs(array: Any) -> Array:
    """An array of NumPy's as torch's; torch complains of memory that is read-only or in reversed order."""
    torch, array = sys.modules["torch"], np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":
        return torch.asarray(array.view(np.int16)).view(torch.bfloat16)
    return torch.asarray(array)


def extended(name: str) -> np.dtype[Any]:
    """A dtype that NumPy has from another package, bfloat16 for one."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f"NumPy has {name} from ml_dtypes, which is not installed: pip install ml_dtypes"
        ) from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


FLOATING = "float16", "bfloat16", "float32", "float64"
ONE_OF_THEM = f"expected {', '.join(FLOATING[:-1])} or {FLOATING[-1]}"


def is_floating(array: Array) -> bool:
    """Whether it holds real numbers; 16-bit ones of ml_dtypes, which NumPy counts as void, too."""
    return str(array.dtype).rpartition(".")[2] in FLOATING


def floating(name: str, array: Any) -> Array:
    array = computable(name, array)
    if not is_floating(array):
        raise TypeError(f"{name} has dtype {array.dtype}, {ONE_OF_THEM}")
    return array


def copied(array: Any, dtype: str | None = None) -> Array:
    """A new array with the same values, its own order in memory, and no autograd graph."""
    new = full_like(array, 0.0, dtype)
    if not is_mutable(new):
        return namespace(array).asarray(array, dtype=new.dtype, copy=True)
    new[...] = computable("array", array)
    return new


def rows_of(array: Array, rows: Any) -> Array:
    """Samples by a slice or by their numbers, an array of NumPy."""
    if isinstance(array, np.ndarray) or isinstance(rows, slice):
        return array[rows]
    return namespace(array).take(array, beside(array, rows), axis=0)
