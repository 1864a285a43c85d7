"""The machine: its caches, and what a record says of it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np

VERSIONS = (
    "fastopt",
    "numpy",
    "torch",
    "numba",
    "numexpr",
    "jax",
    "optax",
    "scikit-learn",
    "thinc",
    "cupy-cuda12x",
    "cupy-cuda13x",
)


def caches(threads: int) -> dict[str, int]:
    """Bytes of each level that so many threads have together; the last level is shared."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / f).read_text().strip() for f in ("level", "type", "size"))
        except FileNotFoundError:
            continue  # a virtual machine need not say all
        if kind != "Instruction":
            found[f"L{level}"] = int(size.removesuffix("K")) << 10
    last = max(found, default="")
    return {name: size * (1 if name == last else threads) for name, size in found.items()}


def where(working_set: int, levels: dict[str, int]) -> str:
    """The smallest level that holds so many bytes."""
    return next((name for name, size in levels.items() if working_set <= size), "DRAM")


def eviction(levels: dict[str, int]):
    """A call that fills every cache with something else."""
    other = np.ones(2 * max(levels.values(), default=1 << 25), np.uint8).view(np.uint64)
    return lambda: np.add(other, 1, out=other)


def peak_flops() -> float:
    """Float32 operations a second, as a matrix product reaches them."""
    a = np.ones((1024, 1024), np.float32)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / float(np.median(times[2:]))


def describe(threads: int, isa: str) -> dict:
    """What the figures were made with."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "isa": isa,
        "caches": caches(threads),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: v for name in VERSIONS if (v := _version(name))},
        "commit": commit(),
        "command": "python -m bench " + shlex.join(sys.argv[1:]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "peak_flops": peak_flops(),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """Of the checkout; with a + where it has changes that are not committed."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        told = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"  # without git
    return told.stdout.strip() or "unknown"
