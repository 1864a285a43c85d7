"""The configuration of this build and of the machine, and the number of threads."""

from __future__ import annotations

import importlib
from importlib import metadata

from fastopt import _checks, _core

_OPTIONAL = (
    "ml_dtypes",
    "array-api-compat",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "threadpoolctl",
)

# More than any machine has cores, and far below the number at which the system refuses OpenMP more threads,
# on which OpenMP ends the process.
MOST_THREADS = 1024


def get_num_threads() -> int:
    """Return the number of threads that a large enough step uses: the number passed to
    :func:`set_num_threads`, else OpenMP's (``OMP_NUM_THREADS``, threadpoolctl); 1 in a forked child."""
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Use ``n`` threads, at most 1024; 0 restores OpenMP's number. Results do not depend on it.

    Raises ``ValueError`` if ``n`` is negative or above 1024, ``TypeError`` if it is not an integer.
    """
    if not 0 <= (threads := _checks.integer("n", n)) <= MOST_THREADS:
        raise ValueError(f"n must lie in [0, {MOST_THREADS}], got {n!r}")
    _core.set_num_threads(threads)


def _cuda() -> str:
    try:
        cuda = importlib.import_module("fastopt._cuda")
    except ModuleNotFoundError:
        return "not built"
    except ImportError as e:
        return f"cannot be loaded: {e}"
    trouble = cuda.trouble()
    return f"{cuda.describe()}, built for {cuda.ARCHITECTURES}" + (f"; {trouble}" if trouble else "")


def config() -> dict[str, str]:
    """Return the names and values that :func:`show_config` prints."""
    lines = {
        "fastopt": metadata.version("fastopt"),
        "compiler": _core.COMPILER,
        "instruction sets built": ", ".join(_core.isas_built()),
        "instruction sets here": ", ".join(_core.isas_supported()),
        "instruction set used": _core.isa(),
        "threads": str(get_num_threads()),
        "CUDA": _cuda(),
        "numpy": metadata.version("numpy"),
    }
    for name in _OPTIONAL:
        try:
            lines[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            lines[name] = "not installed"
    return lines


def show_config() -> None:
    """Print version, compiler, instruction sets, threads, CUDA and optional packages."""
    lines = config()
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
