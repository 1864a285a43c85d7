"""Memory layouts of arrays, and objects that expose an array through one protocol."""

from __future__ import annotations

import array
import ctypes
from typing import Any

import numpy as np
import pytest

SHAPE = (3, 1, 20, 17)  # 1020 elements: two tiles, the second not full


def permuted(a: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """A copy of ``a`` with its axes in memory in this order, from slowest to fastest."""
    return np.array(a.transpose(order), order="C").transpose(np.argsort(order))


def shifted(a: np.ndarray, offset: int) -> np.ndarray:
    """A copy of ``a`` that starts ``offset`` bytes after a 64-byte boundary."""
    memory = np.zeros(a.nbytes + 64 + offset, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    out = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def odd_strides(a: np.ndarray) -> np.ndarray:
    """A copy of ``a`` with arbitrary strides for its axes of length 1."""
    strides = [7 if n == 1 else s for n, s in zip(a.shape, a.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(a.copy(), a.shape, strides)


def spread(a: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """A copy of ``a`` in every step-th element of a larger array, reversed where a step is negative."""
    shape = [n * abs(s) for n, s in zip(a.shape, steps, strict=True)]
    out = np.full(shape, 7, a.dtype)[(..., *(slice(None, None, s) for s in steps))]
    out[...] = a
    return out


def field(a: np.ndarray) -> np.ndarray:
    """A copy of ``a`` in one field of an array of packed structures."""
    out = np.zeros(a.shape, [("before", np.uint8), ("value", a.dtype), ("after", np.uint8)])["value"]
    out[...] = a
    return out


def broadcast(a: np.ndarray) -> np.ndarray:
    return np.broadcast_to(a[:1, :, :, :1].copy(), a.shape)


# Layouts that may be written to (dense in some order of axes), then those that may also be read.
TARGETS = {
    "C order": lambda a: a.copy(),
    "Fortran order": np.asfortranarray,
    "permuted axes": lambda a: permuted(a, (3, 0, 2, 1)),
    "size-1 axes with odd strides": odd_strides,
    "1 byte off": lambda a: shifted(a, 1),
    "3 bytes off": lambda a: shifted(a, 3),
    "one element off": lambda a: shifted(a, a.itemsize),
    "part of a larger array": lambda a: np.stack([a, a])[1],
}
GRADS = TARGETS | {
    "gaps": lambda a: spread(a, (1, 1, 1, 3)),
    "gaps in the outer axis": lambda a: spread(a, (2, 1, 1, 1)),
    "backwards": lambda a: spread(a, (-1, 1, -1, -1)),
    "backwards with gaps, permuted": lambda a: permuted(spread(a, (1, 1, -2, -3)), (2, 3, 1, 0)),
    "field of packed structures": field,
    "broadcast": broadcast,
}


class OnlyInterface:
    """Has __array_interface__ and nothing else."""

    def __init__(self, a: np.ndarray) -> None:
        self.base, self.__array_interface__ = a, a.__array_interface__


class OnlyDLPack:
    """Has the DLPack 1.0 protocol and nothing else."""

    def __init__(self, a: np.ndarray) -> None:
        self.base = a

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        return self.base.__dlpack__(max_version=max_version)


class OldDLPack(OnlyDLPack):
    """Has the protocol from before 1.0, without a version or a read-only flag."""

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.base.__dlpack__()


def torch_tensor(a: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    return torch.from_numpy(a)


def ctypes_array(a: np.ndarray) -> Any:
    return (ctypes.c_float * a.size)(*a)


# Each makes an object from a one-dimensional float32 array; np.asarray or .base gives access to its memory.
FOREIGN = {
    "torch": torch_tensor,
    "array.array": lambda a: array.array("f", a),
    "memoryview": lambda a: memoryview(a.copy()),
    "ctypes": ctypes_array,
    "__array_interface__": lambda a: OnlyInterface(a.copy()),
    "__dlpack__": lambda a: OnlyDLPack(a.copy()),
    "__dlpack__ before 1.0": lambda a: OldDLPack(a.copy()),
}


def memory_of(obj: Any) -> np.ndarray:
    return np.asarray(getattr(obj, "base", obj))
