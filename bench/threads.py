"""How many CPUs and threads everyone gets. This comes before any library is imported, NumPy included:
they size their pools by the CPUs they may run on and by these variables."""

from __future__ import annotations

import argparse
import os

LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")


def confine(argv: list[str]) -> int:
    """Give this process ``--threads`` CPUs and as many threads; 0 leaves it to OpenMP. JAX, which has
    no variable for it, goes by the CPUs. The number that it came to."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_known_args(argv)[0].threads or int(os.environ.get("OMP_NUM_THREADS", "0"))
    cpus = sorted(os.sched_getaffinity(0))
    given = min(asked, len(cpus)) if asked > 0 else len(cpus)
    os.sched_setaffinity(0, cpus[:given])
    os.environ.update({f"{library}_NUM_THREADS": str(given) for library in LIBRARIES})
    return given
