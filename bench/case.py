"""What every task's cases have in common: sizes, dtypes, a name, and how a result is checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from bench.workloads import Shapes, elements

#: Short names, as they are typed and printed.
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
    """The distance from 1 to the next number."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


@dataclass
class Contestant:
    """One competitor in one case, with arrays of its own to write to."""

    run: Callable[[], object]
    results: Callable[[], list[np.ndarray]]
    limit: Callable[[], object] | None = None  # fastopt brings the limit along
    # Where a call only begins what it does, in a stream of its own.
    wait: Callable[[], object] | None = None
    capture: Callable[[Callable], Callable] | None = None  # makes a graph of what calls queue
    calls: int = 1  # that a run is
    conventions: dict = field(default_factory=dict)  # where the library's formula differs from ours

    def finish(self) -> None:
        """One call, to its end."""
        self.run()
        if self.wait is not None:
            self.wait()


@dataclass(frozen=True)
class Case:
    """A task's case adds ``bytes``, ``flops``, ``working_set``, ``shapes``, ``arrays()`` and
    ``check()``."""

    task: ClassVar[str]
    what: str
    workload: str
    size: int = 2**24
    dtype: str = "float32"
    cold: bool = False
    device: str = "cpu"
    replayed: bool = False  # many calls as one graph: the device's time alone
    # What a whole run says of it: the table it stands in, competitors it is content with, by the
    # beginnings of their names, and whether its memory is measured too.
    section: str = ""
    peers: tuple[str, ...] = ("",)
    weighed: bool = False

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
        """What tells a case from all others."""
        size = f" {size_name(self.size)}" if self.workload == "array" else ""
        ways = [way for way in ("cold", "replayed") if getattr(self, way)]
        return " ".join((self.task, self.what, f"{self.workload}{size}", SHORT[self.dtype], *ways))


def size_name(size: int) -> str:
    return f"2^{size.bit_length() - 1}" if size & (size - 1) == 0 else f"{size:,}"


class WrongError(Exception):
    """A competitor's result is not the reference's."""


def sample(array: np.ndarray) -> np.ndarray:
    """In float64: every element, or of a large array some 65,000, all of its end among them. The stride
    is odd, so that every place in a vector register and in a cache line has its turn."""
    flat = np.asarray(array).reshape(-1)
    stride = flat.size // 2**16 | 1
    return np.concatenate([flat[:-4096:stride], flat[-4096:]]).astype(np.float64)


def compare(got: np.ndarray, want: np.ndarray, allowed: np.ndarray | float) -> None:
    """Raise :class:`WrongError` unless every element is as near as allowed."""
    off = np.abs(got - want)
    bad = ~(off <= allowed)  # NaN is bad
    if bad.any():
        i = int(bad.argmax())
        share = bad.mean()
        raise WrongError(
            f"{share:.1%} of the checked elements differ, the first is {got[i]:.9g}, not {want[i]:.9g}"
        )
