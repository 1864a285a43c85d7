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
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=0)
    requested = parser.parse_known_args(argv)[0].threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
    cpus = sorted(os.sched_getaffinity(0))
    threads = min(requested, len(cpus)) if requested > 0 else len(cpus)
    os.sched_setaffinity(0, cpus[:threads])
    os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES})
    return threads
