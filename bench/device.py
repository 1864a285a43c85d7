"""A CUDA device: arrays, timing, and a copy as the limit, all with CuPy.

fastopt works on CuPy arrays in the device's default stream, as torch does, and CuPy records its events there.
JAX has its own streams: its competitors have a ``wait``, and the device is idle before a turn."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import ceil

import numpy as np

from bench import measure
from bench.case import Case, Competitor, installed
from bench.measure import Call

# By default JAX would allocate most of the memory at the start.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.35")

LARGE = 1 << 30  # bytes of the copy whose bandwidth a record contains


def unavailable_reason() -> str:
    """Return why no device can be used for measurements; an empty string if one can."""
    from fastopt import _core

    return _core.cuda_trouble() or ("" if installed("cupy") else "CuPy is not installed")


# ---- arrays ----


def to_device(case: Case, arrays) -> list:
    """Return the arrays on the case's device: unchanged on the CPU, otherwise as CuPy copies. Raw bytes are
    copied, because CuPy's kernels do not support every dtype."""
    if case.device == "cpu":
        return list(arrays)
    import cupy

    copies = []
    for a in map(np.ascontiguousarray, arrays):
        new = cupy.ndarray(a.shape, a.dtype, cupy.cuda.alloc(a.nbytes))
        new.data.copy_from_host(a.ctypes.data, a.nbytes)
        copies.append(new)
    return copies


def to_host(arrays) -> list[np.ndarray]:
    """Return the arrays as NumPy arrays, after all queued work."""
    return [a if isinstance(a, np.ndarray) else _download(a) for a in arrays]


def _download(array) -> np.ndarray:
    host = np.empty(array.shape, array.dtype)
    array.data.copy_to_host(host.ctypes.data, host.nbytes)
    return host


def num_buffer_sets(case: Case) -> int:
    """Return the number of sets of arrays through which a case rotates, so that a set is not in the L2 when
    it is used again. A far smaller case is bound by launches and has one set."""
    if case.device == "cpu" or case.working_set >= 2 * l2() or case.working_set < l2() / 32:
        return 1
    return 1 + ceil(2 * l2() / case.working_set)


def available_memory() -> int:
    """Return the free device memory in bytes, after emptying the memory pools of all libraries."""
    import cupy

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    return free_memory()


def free_memory() -> int:
    """Return the free device memory in bytes, after all queued work."""
    from cupy.cuda import runtime

    runtime.deviceSynchronize()
    return runtime.memGetInfo()[0]


# ---- time ----


class Turn(measure.Turn):
    """A turn timed by two events around many calls. A first call and a synchronization come before them."""

    MIN_TURN_S = 20e-3

    def __call__(self) -> float:
        from cupy.cuda import Event, get_elapsed_time, runtime

        begin, end = Event(), Event()
        self._calls(1)
        runtime.deviceSynchronize()
        begin.record()
        self._calls(self.repeats)
        end.record()
        end.synchronize()
        return get_elapsed_time(begin, end) * 1e-3 / self.repeats

    def _calls(self, repeats: int) -> None:
        for _ in range(repeats):
            self.call()
        if self.wait is not None:
            self.wait()


def copy(nbytes: int) -> Callable[[], object]:
    """Return the limit: a device-to-device copy that moves ``nbytes``, half of them read and half written.
    Its first call allocates the arrays."""
    import cupy

    size = max(nbytes // 2, 1)

    @cache
    def arrays() -> tuple[cupy.ndarray, cupy.ndarray]:
        source = cupy.arange(ceil(size / 8), dtype=np.uint64)
        return source, cupy.empty_like(source)

    def run() -> None:
        source, target = arrays()
        target.data.copy_from_device_async(source.data, size)

    return run


# ---- graphs ----

MIN_GRAPH_CALLS = 20  # so many calls make the launch of a graph negligible


def as_cuda_graph(one: Competitor, sets: int) -> Competitor:
    """Capture many calls, which rotate through all sets of arrays, as one graph. The host's time is then
    excluded."""
    if one.capture is None:
        raise NotImplementedError("its calls cannot be captured as a CUDA graph")
    calls = sets * ceil(MIN_GRAPH_CALLS / sets)

    def graph(capture: Callable, call: Call | None) -> Call | None:
        if call is None:
            return None
        for _ in range(sets):
            call()  # whatever a set creates once is created before the capture
        return capture(lambda: [call() for _ in range(calls)])

    return replace(one, run=graph(one.capture, one.run), limit=graph(capture, one.limit), calls=calls)


def capture(calls: Call) -> Call:
    """Capture what ``calls`` queue in CuPy's current stream, and return the launch of the graph."""
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.cuda.runtime.deviceSynchronize()
        stream.begin_capture()
        calls()
        graph = stream.end_capture()
    # A graph contains addresses of arrays but does not keep them alive; `calls` does.
    return lambda held=calls: graph.launch()


# ---- description for a record ----


@cache
def l2() -> int:
    return int(_properties()["l2CacheSize"])


def _properties() -> dict:
    from cupy.cuda import runtime

    return runtime.getDeviceProperties(runtime.getDevice())


def copy_bandwidth() -> float:
    """Return the bandwidth of a copy in bytes per second, read and written."""
    turn = Turn(copy(2 * LARGE), None)
    turn.prepare()
    return 2 * LARGE / float(np.median([turn() for _ in range(9)]))


def describe() -> dict:
    from cupy.cuda import runtime

    properties = _properties()
    return {
        "gpu": properties["name"].decode(),
        "caches": {"L2": l2()},
        "multiprocessors": properties["multiProcessorCount"],
        "memory": properties["totalGlobalMem"],
        "cuda": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
        "copy_bandwidth": copy_bandwidth(),
        **smi(),  # the clocks under load
    }


def smi() -> dict[str, str]:
    """Return the driver version and the clocks from nvidia-smi, which are not changed; empty if it fails."""
    fields = (
        "driver_version",
        "clocks.sm",
        "clocks.mem",
        "clocks.max.sm",
        "clocks.max.mem",
        "power.draw",
    )
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, map(str.strip, line.strip().split(",")), strict=False))
