"""Arrays of the real CuPy in the shim's memory. Their attributes and interfaces are CuPy's own; operations
that need a driver (kernels, copies, streams) are performed by NumPy and the shim."""

from __future__ import annotations

import contextlib
import ctypes
import os
from types import SimpleNamespace
from typing import Any

import numpy as np

# Version 3 of the interface requests the current stream from the driver; the stream is added below.
os.environ["CUPY_CUDA_ARRAY_INTERFACE_EXPORT_VERSION"] = "2"

import cupy

from devices import CuPy, Memory, Shim, reach


def view(array: Any) -> np.ndarray:
    """Return a NumPy view of a CuPy array, whose memory is host memory here."""
    low, high = reach(array.shape, array.strides, array.itemsize)
    raw = (ctypes.c_char * (high - low)).from_address(array.data.ptr + low)
    return np.ndarray(array.shape, array.dtype, raw, -low, array.strides)


def assign(array: Any, key: Any, value: Any) -> None:
    view(array)[key] = view(value) if isinstance(value, cupy.ndarray) else value


class CuPyOnShim(CuPy):
    """The device for tests with CuPy's arrays and the shim's streams and graphs."""

    name = "cupy on the shim"

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.shim = shim = Shim(lib)
        self.use, self.hold, self.cluster = shim.use, shim.hold, shim.cluster
        self.new_stream, self.capture = shim.new_stream, shim.capture
        runtime = SimpleNamespace(
            deviceSynchronize=lambda: None,
            memcpy=lambda to, start, size, kind: ctypes.memmove(to, start, size),
        )
        self.cupy = SimpleNamespace(
            ndarray=cupy.ndarray, cuda=SimpleNamespace(alloc=self.allocate, runtime=runtime)
        )
        own = cupy.ndarray.__cuda_array_interface__
        cupy.ndarray.__cuda_array_interface__ = property(
            lambda array: {**own.__get__(array), "version": 3, "stream": shim.stream}
        )
        cupy.ndarray.__setitem__ = assign
        cupy.ndarray.__deepcopy__ = lambda array, memo: self.array(view(array))
        cupy.ndarray.device = contextlib.nullcontext()
        cupy.copyto = lambda to, value, **options: assign(to, ..., value)
        cupy.cuda.get_current_stream = lambda device=None: SimpleNamespace(ptr=shim.stream)
        cupy.cuda.runtime.getDevice = lambda: 0
        cupy.cuda.set_allocator(self.allocate)

    def allocate(self, size: int) -> Any:
        memory = Memory(self.shim.lib, size)
        owned = cupy.cuda.UnownedMemory(memory.address.value or 0, size, memory, 0)
        return cupy.cuda.MemoryPointer(owned, 0)
