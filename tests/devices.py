"""Arrays on a CUDA device, for tests. FASTOPT_TEST_DEVICE=cupy selects a real device through CuPy. The default
is the host shim (cuda_shim/), which runs the engine's own sources on this machine or, with "ptx", the PTX that
nvcc generates from its kernels."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from fastopt import _core

CAPTURE_RELAXED = 2
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


def reach(shape: Any, strides: Any, itemsize: int) -> tuple[int, int]:
    """The start and end of an array's elements, in bytes relative to its first element."""
    if 0 in shape:
        return 0, 0
    reaches = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(r for r in reaches if r < 0), sum(r for r in reaches if r > 0) + itemsize


def bounds(a: np.ndarray) -> tuple[int, int]:
    """The addresses of the first byte of an array's elements and of the byte after the last."""
    low, high = reach(a.shape, a.strides, a.itemsize)
    return a.ctypes.data + low, a.ctypes.data + high


class Array:
    """An array on the shim, exposed through the same protocols as arrays of other libraries. It implements only
    what fastopt requires of a library: creating a similar array, and assignment."""

    def __init__(self, device: Shim, view: np.ndarray, memory: Any) -> None:
        self._device, self.view, self._memory = device, view, memory

    shape = property(lambda self: self.view.shape)
    dtype = property(lambda self: self.view.dtype)
    ndim = property(lambda self: self.view.ndim)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        v = self.view
        return {
            "version": 3,
            "shape": v.shape,
            "typestr": v.dtype.str,
            "data": (v.ctypes.data if v.size else 0, not v.flags.writeable),
            "strides": None if v.flags.c_contiguous else v.strides,
            "stream": self._device.stream,
        }

    def __array_namespace__(self) -> Shim:
        return self._device

    def __getitem__(self, key: Any) -> Array:
        return Array(self._device, self.view[key], self._memory)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.view[key] = getattr(value, "view", value)

    def __deepcopy__(self, memo: Any) -> Array:
        return self._device.array(self.view)


class Memory:
    """Memory on the shim's device, freed with the last array that uses it."""

    def __init__(self, lib: ctypes.CDLL, size: int) -> None:
        self._lib, self.address = lib, ctypes.c_void_p()
        assert lib.cudaMalloc(ctypes.byref(self.address), ctypes.c_size_t(size)) == 0

    def __del__(self) -> None:
        self._lib.cudaFree(self.address)


class Shim:
    """The shim as an array library and a device."""

    name = "shim"

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib = lib
        self.stream = 1  # the legacy default stream
        self._capsule = capsule(lib)

    def use(self) -> None:
        _core.use_cuda(self._capsule)

    # ---- arrays ----

    def array(self, host: np.ndarray) -> Array:
        """An array with the values, layout and offset from a 64-byte boundary of ``host``."""
        low, high = bounds(host)
        start = low % 64
        memory = Memory(self.lib, start + high - low)  # exact, to detect reads past the end
        raw = (ctypes.c_char * (start + high - low)).from_address(memory.address.value or 0)
        view = np.ndarray(host.shape, host.dtype, raw, start + host.ctypes.data - low, host.strides)
        if host.flags.writeable or not host.size:
            view[...] = host
        else:
            np.copyto(view, host)
            view.flags.writeable = False
        return Array(self, view, memory)

    def host(self, array: Array) -> np.ndarray:
        return array.view.copy(order="K")

    def full_like(self, array: Array, fill: float, dtype: Any = None) -> Array:
        return self.array(np.full_like(array.view, fill, dtype=dtype, order="K"))

    def empty_like(self, array: Array, dtype: Any = None) -> Array:
        return self.full_like(array, np.nan, dtype)  # poison

    # ---- streams and graphs ----

    @contextlib.contextmanager
    def new_stream(self) -> Iterator[int]:
        """Use a new stream within the block."""
        stream, before = ctypes.c_void_p(), self.stream
        assert self.lib.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
        self.stream = stream.value
        try:
            yield self.stream
        finally:
            self.stream = before

    def capture(self, work: Any) -> Any:
        """Capture the work queued by `work`. Returns a function that replays it on the current stream."""
        stream, graph, ready = ctypes.c_void_p(self.stream), ctypes.c_void_p(), ctypes.c_void_p()
        assert self.lib.cudaStreamBeginCapture(stream, CAPTURE_RELAXED) == 0
        try:
            work()
        finally:
            assert self.lib.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0
        assert self.lib.cudaGraphInstantiate(ctypes.byref(ready), graph, ctypes.c_ulonglong(0)) == 0

        def replay() -> None:
            assert self.lib.cudaGraphLaunch(ready, ctypes.c_void_p(self.stream)) == 0

        return replay

    def hold(self, most: int) -> None:
        """Limit the shared memory, in bytes, in which BatchNorm may hold channels."""
        self.lib.fastopt_cuda_hold(ctypes.c_int64(most))

    def cluster(self, most: int) -> bool:
        """Allow clusters of up to ``most`` blocks. Returns whether the device supports them."""
        return clusters(self.lib, most) == most

    def counts(self) -> dict[str, int]:
        """The numbers of device operations that the host has requested since the last call."""
        names = ("launches", "clustered", "allocations", "synchronisations", "copies")
        found = {}
        for name in names:
            count = getattr(self.lib, f"shim_{name}")
            count.restype = ctypes.c_int64
            found[name] = count()
        self.lib.shim_reset_counts()
        return found


def capsule(lib: ctypes.CDLL) -> Any:
    """The engine of a library built with the shim, in the capsule that _core expects."""
    lib.fastopt_cuda_backend.restype = ctypes.c_void_p
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(lib.fastopt_cuda_backend(), b"fastopt.Backend", None)


def clusters(lib: ctypes.CDLL, most: int) -> int:
    """Allow an engine's kernels clusters of up to ``most`` blocks from now on. Returns the new limit."""
    return lib.fastopt_cuda_cluster(ctypes.c_int(most))


def launch_plainly(lib: ctypes.CDLL, plain: bool) -> None:
    """Disable, or enable, the overlap of an engine's kernels and clusters of their blocks. Earlier versions
    have neither."""
    if hasattr(lib, "fastopt_cuda_cluster"):
        lib.fastopt_cuda_overlap(ctypes.c_bool(not plain))
        clusters(lib, 1 if plain else 8)


class Bfloat16:
    """A CuPy array of raw bits, described as bfloat16, because not every CuPy version supports that dtype."""

    def __init__(self, device: CuPy, raw: Any, dtype: np.dtype) -> None:
        self._device, self.raw, self.dtype = device, raw, dtype

    shape = property(lambda self: self.raw.shape)
    ndim = property(lambda self: self.raw.ndim)
    __cuda_array_interface__ = property(
        lambda self: {**self.raw.__cuda_array_interface__, "typestr": "<V2"}
    )

    def __array_namespace__(self) -> CuPy:
        return self._device

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, Bfloat16):
            value = self._device.array(np.asarray(value, self.dtype))
        self.raw[key] = value.raw

    def __deepcopy__(self, memo: Any) -> Bfloat16:
        return self._device.array(self._device.host(self))


class CuPy:
    """A real device. Arrays are copied in both directions as bytes, independent of the dtypes and layouts that
    CuPy's kernels support, and only after all queued work has finished."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        if (
            os.environ.get("FASTOPT_TEST_POOL") == "off"
        ):  # so that a memory checker detects accesses past an array
            cupy.cuda.set_allocator(None)

    @property
    def _lib(self) -> ctypes.CDLL:
        from fastopt import _cuda

        return ctypes.CDLL(_cuda.__file__)

    def use(self) -> None:
        from fastopt import _cuda

        _core.use_cuda(_cuda.backend)

    def hold(self, most: int) -> None:
        self._lib.fastopt_cuda_hold(ctypes.c_int64(most))

    def cluster(self, most: int) -> bool:
        return clusters(self._lib, most) == most

    # ---- arrays ----

    def array(self, host: np.ndarray) -> Any:
        """An array with the values, layout and offset from a 64-byte boundary of ``host``."""
        low, high = bounds(host)
        memory = self.cupy.cuda.alloc(high - low + 128)
        start = memory + (-memory.ptr % 64 + low % 64)
        self._move(start.ptr, low, high - low, HOST_TO_DEVICE)
        bfloat16 = host.dtype.name == "bfloat16"
        dtype = np.dtype(np.uint16) if bfloat16 else host.dtype
        raw = self.cupy.ndarray(host.shape, dtype, start + (host.ctypes.data - low), host.strides)
        return Bfloat16(self, raw, host.dtype) if bfloat16 else raw

    def host(self, array: Any) -> np.ndarray:
        raw = getattr(array, "raw", array)
        low, high = reach(raw.shape, raw.strides, raw.itemsize)
        span = np.empty(high - low, np.uint8)
        self._move(span.ctypes.data, raw.data.ptr + low, high - low, DEVICE_TO_HOST)
        return np.ndarray(raw.shape, array.dtype, span, -low, raw.strides)

    def full_like(self, array: Any, fill: float, dtype: Any = None) -> Any:
        return self.array(np.full_like(self.host(array), fill, dtype=dtype, order="K"))

    def empty_like(self, array: Any, dtype: Any = None) -> Any:
        return self.full_like(array, np.nan, dtype)  # poison

    def _move(self, to: int, start: int, size: int, kind: int) -> None:
        runtime = self.cupy.cuda.runtime
        runtime.deviceSynchronize()
        runtime.memcpy(to, start, size, kind)
        runtime.deviceSynchronize()  # a copy from pageable memory may finish after the call

    # ---- streams and graphs ----

    @contextlib.contextmanager
    def new_stream(self) -> Iterator[int]:
        """Use a new stream within the block."""
        with self.cupy.cuda.Stream(non_blocking=True) as stream:
            self.cupy.cuda.runtime.deviceSynchronize()
            try:
                yield stream.ptr
            finally:
                stream.synchronize()

    def capture(self, work: Any) -> Any:
        """Capture the work queued by `work`. Returns a function that replays it on the current stream."""
        stream = self.cupy.cuda.get_current_stream()
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
        return graph.launch


@cache
def device() -> Shim | CuPy:
    """The device for the tests. Raises the original error if it is not available."""
    match os.environ.get("FASTOPT_TEST_DEVICE", "shim"):
        case "cupy":
            return CuPy()
        case "ptx":
            from cuda_shim.translated import load

            return Shim(load())
        case "shim":
            return Shim(shim_library())
        case "cupy-shim":
            from cuda_shim.cupy_arrays import CuPyOnShim

            return CuPyOnShim(shim_library())
        case other:
            raise ValueError(f"FASTOPT_TEST_DEVICE must be cupy, ptx, cupy-shim or shim, got {other!r}")


def shim_library() -> ctypes.CDLL:
    from cuda_shim.build import build

    return ctypes.CDLL(str(build(os.environ.get("FASTOPT_SHIM_FLAGS", "").split())))
