"""The machine: its caches, and its description in a record."""

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
    """Return the total size in bytes of each cache level for ``threads`` threads; the last level is shared."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / f).read_text().strip() for f in ("level", "type", "size"))
        except FileNotFoundError:
            continue  # a virtual machine may not report all of them
        if kind != "Instruction":
            sizes[f"L{level}"] = int(size.removesuffix("K")) << 10
    last = max(sizes, default="")
    return {name: size * (1 if name == last else threads) for name, size in sizes.items()}


def where(working_set: int, levels: dict[str, int]) -> str:
    """Return the name of the smallest level that holds ``working_set`` bytes."""
    return next((name for name, size in levels.items() if working_set <= size), "DRAM")


def eviction(levels: dict[str, int]):
    """Return a call that fills every cache with other data."""
    other = np.ones(2 * max(levels.values(), default=1 << 25), np.uint8).view(np.uint64)
    return lambda: np.add(other, 1, out=other)


def peak_flops() -> float:
    """Measure the float32 operations per second of a matrix product."""
    a = np.ones((1024, 1024), np.float32)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / float(np.median(times[2:]))


def describe(threads: int, isa: str) -> dict:
    """Describe the hardware and software of a run."""
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
    """Return the commit of the checkout, with a + if it has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"  # git is not installed
    return done.stdout.strip() or "unknown"
