"""Arrays on a CUDA device, for tests: on a real one through CuPy, if FASTOPT_TEST_DEVICE=cupy says so, else on
the host shim (cuda_shim/), which runs the engine's own sources on this machine or, with "ptx", what nvcc makes
of its kernels."""

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
    """Where an array's elements begin and end, in bytes from the first one."""
    if 0 in shape:
        return 0, 0
    reaches = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(r for r in reaches if r < 0), sum(r for r in reaches if r > 0) + itemsize


def bounds(a: np.ndarray) -> tuple[int, int]:
    """The first byte of an array's elements and one past the last, as addresses."""
    low, high = reach(a.shape, a.strides, a.itemsize)
    return a.ctypes.data + low, a.ctypes.data + high


class Array:
    """An array of the shim's, described as other libraries describe theirs. It knows no more than fastopt asks
    of a library: how to make another one like itself, and to be assigned to."""

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
    """Bytes on the shim's device, as long as an array needs them."""

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
        self.stream = 1  # the legacy default one
        self._capsule = capsule(lib)

    def use(self) -> None:
        _core.use_cuda(self._capsule)

    # ---- arrays ----

    def array(self, host: np.ndarray) -> Array:
        """One with these values, this layout, and this distance from a boundary of 64 bytes."""
        low, high = bounds(host)
        start = low % 64
        memory = Memory(self.lib, start + high - low)  # not a byte more, so that reading on is found
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
        """Queue on a stream of one's own."""
        stream, before = ctypes.c_void_p(), self.stream
        assert self.lib.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
        self.stream = stream.value
        try:
            yield self.stream
        finally:
            self.stream = before

    def capture(self, work: Any) -> Any:
        """A function that replays on the current stream what `work` queued there."""
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
        """Bytes of shared memory in which BatchNorm may hold channels."""
        self.lib.fastopt_cuda_hold(ctypes.c_int64(most))

    def cluster(self, most: int) -> bool:
        """Let so many blocks be a cluster; whether they may."""
        return clusters(self.lib, most) == most

    def counts(self) -> dict[str, int]:
        """What the host has asked of the device since the last call."""
        names = ("launches", "clustered", "allocations", "synchronisations", "copies")
        found = {}
        for name in names:
            count = getattr(self.lib, f"shim_{name}")
            count.restype = ctypes.c_int64
            found[name] = count()
        self.lib.shim_reset_counts()
        return found


def capsule(lib: ctypes.CDLL) -> Any:
    """The engine of a library that was built with the shim, as _core takes it."""
    lib.fastopt_cuda_backend.restype = ctypes.c_void_p
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(lib.fastopt_cuda_backend(), b"fastopt.Backend", None)


def clusters(lib: ctypes.CDLL, most: int) -> int:
    """Let so many blocks of an engine's kernels be a cluster, from now on; how many that is."""
    return lib.fastopt_cuda_cluster(ctypes.c_int(most))


def launch_plainly(lib: ctypes.CDLL, plain: bool) -> None:
    """Keep an engine's kernels from overlapping and their blocks from being clusters, or let them. Earlier
    versions know of neither."""
    if hasattr(lib, "fastopt_cuda_cluster"):
        lib.fastopt_cuda_overlap(ctypes.c_bool(not plain))
        clusters(lib, 1 if plain else 8)


class Bfloat16:
    """An array of CuPy's as bits, described as bfloat16: not every CuPy knows that dtype."""

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
    """A real device. Arrays go there and back byte by byte, whatever dtypes and layouts CuPy's kernels know of,
    and when everything that is queued is done."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        if (
            os.environ.get("FASTOPT_TEST_POOL") == "off"
        ):  # so that a memory checker sees where arrays end
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
        """One with these values, this layout, and this distance from a boundary of 64 bytes."""
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
        runtime.deviceSynchronize()  # a copy from pageable memory may end later than the call

    # ---- streams and graphs ----

    @contextlib.contextmanager
    def new_stream(self) -> Iterator[int]:
        """Queue on a stream of one's own."""
        with self.cupy.cuda.Stream(non_blocking=True) as stream:
            self.cupy.cuda.runtime.deviceSynchronize()
            try:
                yield stream.ptr
            finally:
                stream.synchronize()

    def capture(self, work: Any) -> Any:
        """A function that replays on the current stream what `work` queued there."""
        stream = self.cupy.cuda.get_current_stream()
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
        return graph.launch


@cache
def device() -> Shim | CuPy:
    """The one that the tests run on; it raises what keeps it from being there."""
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
