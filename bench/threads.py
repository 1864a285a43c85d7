"""The number of CPUs and threads of all libraries.

It must be set before any library is imported, including NumPy: libraries size their thread pools by the CPU
affinity and by these environment variables."""

from __future__ import annotations

import argparse
import os

LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")


def confine(argv: list[str]) -> int:
    """Confine this process to ``--threads`` CPUs and as many threads, and return their number.

    With 0, ``OMP_NUM_THREADS`` or else the number of CPUs decides. JAX has no environment variable for it and
    uses the CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        usage="%(prog)s [options] [task] [what ...]",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--threads", type=int, default=0)
    requested = parser.parse_known_args(argv)[0].threads
    if requested > len(cpus):
        parser.error(f"--threads is {requested}, but this process may use only {len(cpus)} CPUs")
    requested = requested or _of_openmp()
    threads = min(requested, len(cpus)) if requested > 0 else len(cpus)
    os.sched_setaffinity(0, cpus[:threads])
    os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES})
    return threads


def _of_openmp() -> int:
    """Return the number in ``OMP_NUM_THREADS``, which may be a list with a number for each level, or 0."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0
