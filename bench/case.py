"""What the cases of all tasks share: sizes, dtypes, names, and the comparison of results."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from bench.workloads import Shapes, elements

#: The short names on the command line and in tables.
DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}
SHORT = {long: short for short, long in DTYPES.items()}


def dtype_of(name: str) -> np.dtype:
    if name == "bfloat16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype(name)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def epsilon(dtype: np.dtype) -> float:
    """Return the distance from 1 to the next larger number."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


@dataclass
class Competitor:
    """One competitor in one case, with its own arrays."""

    run: Callable[[], object]
    results: Callable[[], list[np.ndarray]]
    limit: Callable[[], object] | None = None  # the limit of the case, provided by fastopt only
    wait: Callable[[], object] | None = None  # waits for the work that `run` queues in another stream
    capture: Callable[[Callable], Callable] | None = None  # captures queued work as a CUDA graph
    calls: int = 1  # the number of calls that one `run` makes
    conventions: dict = field(default_factory=dict)  # differences from fastopt's default formula

    def finish(self) -> None:
        """Make one call and wait for its work."""
        self.run()
        if self.wait is not None:
            self.wait()


@dataclass(frozen=True)
class Case:
    """What is measured. A task's subclass adds ``bytes``, ``flops``, ``working_set``, ``shapes``,
    ``arrays()`` and ``check()``."""

    task: ClassVar[str]
    what: str
    workload: str
    size: int = 2**24
    dtype: str = "float32"
    cold: bool = False
    device: str = "cpu"
    as_cuda_graph: bool = False  # many calls as one graph, which times the device alone
    # Settings of the full suite: the section of the report, prefixes of the competitors' names to include, and
    # whether to measure the memory, too.
    section: str = ""
    peers: tuple[str, ...] = ("",)
    measure_memory: bool = False

    @cached_property
    def numpy_dtype(self) -> np.dtype:
        return dtype_of(self.dtype)

    @property
    def shapes(self) -> Shapes:
        raise NotImplementedError

    @cached_property
    def elements(self) -> int:
        return elements(self.shapes)

    @property
    def name(self) -> str:
        """The name in reports and records, different for every case."""
        size = f" {size_name(self.size)}" if self.workload == "array" else ""
        modes = ["cold"] * self.cold + ["replayed"] * self.as_cuda_graph
        return " ".join((self.task, self.what, f"{self.workload}{size}", SHORT[self.dtype], *modes))


def size_name(size: int) -> str:
    return f"2^{size.bit_length() - 1}" if size & (size - 1) == 0 else f"{size:,}"


class WrongError(Exception):
    """A competitor's result differs from the reference."""


def sample(array: np.ndarray) -> np.ndarray:
    """Return the elements to compare, in float64: all of them, or some 65,000 of a large array, including all
    at its end. The stride is odd, so that every position in a vector register and in a cache line is
    included."""
    flat = np.asarray(array).reshape(-1)
    stride = flat.size // 2**16 | 1
    return np.concatenate([flat[:-4096:stride], flat[-4096:]]).astype(np.float64)


def compare(got: np.ndarray, want: np.ndarray, allowed: np.ndarray | float) -> None:
    """Raise :class:`WrongError` unless every element differs by at most ``allowed``."""
    error = np.abs(got - want)
    bad = ~(error <= allowed)  # NaN is bad
    if bad.any():
        i = int(bad.argmax())
        share = bad.mean()
        raise WrongError(
            f"{share:.1%} of the checked elements differ; the first is {got[i]:.9g}, expected {want[i]:.9g}"
        )
