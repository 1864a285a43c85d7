"""What this build of fastopt is and runs on."""

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

# More than any machine has cores; and far from where OpenMP, which cannot be told no, finds that the system
# gives it no more threads, and ends the process.
MOST_THREADS = 1024


def get_num_threads() -> int:
    """The number of threads a large enough step uses: what :func:`set_num_threads` said, else OpenMP's
    (``OMP_NUM_THREADS``, threadpoolctl); 1 in a forked child."""
    return _core.get_num_threads()


def set_num_threads(n: int) -> None:
    """Use ``n`` threads, at most 1024; 0 leaves it to OpenMP. Results do not depend on it.

    ``ValueError`` for a number that is negative or larger, ``TypeError`` for what is no whole number.
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
    """What :func:`show_config` prints, name by name."""
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
    """Print version, compiler, instruction sets built and chosen, threads, CUDA, optional packages."""
    lines = config()
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
