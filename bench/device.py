"""A CUDA device: arrays on it, its clock, and a copy as the limit. CuPy serves for all three.

fastopt's arrays are CuPy's and, like torch's, worked on in the device's default stream, where CuPy's events are
recorded. JAX has streams of its own: its contestants have a ``wait``, and the device is idle before a turn."""

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
from bench.case import Case, Contestant, installed
from bench.measure import Call

# JAX would otherwise take most of the memory for itself, and so early.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.35")

LARGE = 1 << 30  # bytes of the copy that a record names


def trouble() -> str:
    """Why nothing can be measured on a device here; empty if it can."""
    from fastopt import _core

    return _core.cuda_trouble() or ("" if installed("cupy") else "CuPy is not installed")


# ---- arrays ----


def put(case: Case, arrays) -> list:
    """Where the case is: NumPy's arrays as they are, or copies of CuPy's. Bytes are copied, whatever they
    mean, for CuPy's kernels do not know every dtype."""
    if case.device == "cpu":
        return list(arrays)
    import cupy

    there = []
    for a in map(np.ascontiguousarray, arrays):
        new = cupy.ndarray(a.shape, a.dtype, cupy.cuda.alloc(a.nbytes))
        new.data.copy_from_host(a.ctypes.data, a.nbytes)
        there.append(new)
    return there


def get(arrays) -> list[np.ndarray]:
    """As NumPy's arrays, when what is queued is done."""
    return [a if isinstance(a, np.ndarray) else _downloaded(a) for a in arrays]


def _downloaded(array) -> np.ndarray:
    host = np.empty(array.shape, array.dtype)
    array.data.copy_to_host(host.ctypes.data, host.nbytes)
    return host


def sets(case: Case) -> int:
    """How many sets of its arrays a case goes round, so that the L2 holds none of them when its turn
    comes. What is far smaller is bound by launches and stays where it is."""
    if case.device == "cpu" or case.working_set >= 2 * l2() or case.working_set < l2() / 32:
        return 1
    return 1 + ceil(2 * l2() / case.working_set)


def free() -> int:
    """Bytes that can still be had, after all libraries have given back what they only keep."""
    import cupy

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    return left()


def left() -> int:
    """Bytes that nobody has, when what is queued is done."""
    from cupy.cuda import runtime

    runtime.deviceSynchronize()
    return runtime.memGetInfo()[0]


# ---- time ----


class Turn(measure.Turn):
    """Between two events, many calls; a first one stands before them, as does an idle device."""

    LONG = 20e-3

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
    """The limit: a device-to-device copy that moves so many bytes, half of them read, half written. The
    first call makes the arrays."""
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

REPLAYED = 20  # calls, in which the launch of a graph is lost


def replayed(one: Contestant, sets: int) -> Contestant:
    """Its calls as one graph, that goes round all its sets of arrays: of the host's time nothing is left."""
    if one.capture is None:
        raise NotImplementedError("its calls are not captured")
    calls = sets * ceil(REPLAYED / sets)

    def graph(capture: Callable, call: Call | None) -> Call | None:
        if call is None:
            return None
        for _ in range(sets):
            call()  # what each set makes once is made before
        return capture(lambda: [call() for _ in range(calls)])

    return replace(one, run=graph(one.capture, one.run), limit=graph(capture, one.limit), calls=calls)


def capture(calls: Call) -> Call:
    """What is queued in CuPy's current stream, as a graph to launch."""
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.cuda.runtime.deviceSynchronize()
        stream.begin_capture()
        calls()
        graph = stream.end_capture()
    return lambda held=calls: graph.launch()  # it knows addresses, and holds nothing


# ---- what a record says of it ----


@cache
def l2() -> int:
    return int(_properties()["l2CacheSize"])


def _properties() -> dict:
    from cupy.cuda import runtime

    return runtime.getDeviceProperties(runtime.getDevice())


def copy_bandwidth() -> float:
    """Bytes a second, read and written."""
    turn = Turn(copy(2 * LARGE), None)
    turn.prepare()
    return 2 * LARGE / float(np.median([turn() for _ in range(9)]))


def describe() -> dict:
    from cupy.cuda import runtime

    about = _properties()
    return {
        "gpu": about["name"].decode(),
        "caches": {"L2": l2()},
        "multiprocessors": about["multiProcessorCount"],
        "memory": about["totalGlobalMem"],
        "cuda": f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}",
        "copy_bandwidth": copy_bandwidth(),
        **smi(),  # clocks as they are under load
    }


def smi() -> dict[str, str]:
    """The driver's word on itself and on the clocks, which are left as they are; nothing if it has none."""
    asked = (
        "driver_version",
        "clocks.sm",
        "clocks.mem",
        "clocks.max.sm",
        "clocks.max.mem",
        "power.draw",
    )
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(asked, map(str.strip, told.strip().split(",")), strict=False))
