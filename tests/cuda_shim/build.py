"""Build device code for the host, once for each content, set of flags and compiler."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHIM = Path(__file__).parent
CSRC = SHIM.parents[1] / "csrc"
CACHE = Path(tempfile.gettempdir()) / f"fastopt-cuda-shim-{os.getuid()}"

FLAGS = (
    # The arithmetic flags of CMakeLists.txt.
    *("-std=c++20", "-O1", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    # Device code reads memory as vectors of another type.
    "-fno-strict-aliasing",
    # Two libraries in one process keep their own __shared__ and state.
    *("-fPIC", "-fno-gnu-unique"),
    # nvcc's unroll pragma has no meaning here. Reads that would be garbage on a device are errors.
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror=return-type", "-Werror=uninitialized"),
)
MODES = {"fibers": (), "threads": ("-DSHIM_THREADS",)}


def build(
    extra_flags: Sequence[str] = (),
    mode: str = "fibers",
    sources: Iterable[Path] | None = None,
    program: bool = False,
    others: Iterable[Path] = (),
) -> Path:
    """Build the CUDA engine (or other `sources`) with the shim, and link the objects `others`. The result is
    a shared library or, with ``program``, an executable.

    The threads of a block are fibers or, in mode "threads", real threads. Two processes that build the same
    at once build it once. Raises RuntimeError with the compiler's message if the build fails.
    """
    engine = sorted((CSRC / "cuda").glob("*.cu")) if sources is None else list(sources)
    flags = (*FLAGS, *MODES[mode], *extra_flags)
    files = (*sorted(SHIM.glob("*.cpp")), *engine)
    objects = [*two_at_a_time(lambda source: compiled(source, flags), files), *others]
    # The link depends on the names of the objects, which identify their contents.
    link = [] if program else ["-shared", "-Wl,-Bsymbolic"]
    command = [compiler(), *flags, *link, *map(str, objects), "-pthread", "-ldl"]
    return once(f"shim-{digest(*command)}{'' if program else '.so'}", command)


def compiler() -> str:
    """Return the path of the C++ compiler. Raises FileNotFoundError if there is none."""
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name)
    if not found:
        raise FileNotFoundError(f"no C++ compiler {name!r}")
    return found


def compiled(source: Path, flags: Sequence[str]) -> Path:
    folders = [SHIM, CSRC] if CSRC in source.parents else [SHIM]
    headers = sorted(
        h for folder in folders for suffix in ("*.h", "*.hpp") for h in folder.rglob(suffix)
    )
    command = [compiler(), *flags, *(f"-I{folder}" for folder in folders)]
    key = digest(_version(), *command, *(path.read_bytes() for path in (source, *headers)))
    return once(f"{source.stem}-{key}.o", [*command, "-x", "c++", "-c", str(source)])


def once(name: str, command: Sequence[str]) -> Path:
    """Return the file of this name in the cache, which the command creates if it does not exist."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    made = CACHE / name
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            part = CACHE / f"{name}.part"
            done = subprocess.run(
                [*command, "-o", str(part)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            part.replace(made)
    return made


def two_at_a_time(make: Callable[[Path], Path], files: Iterable[Path]) -> list[Path]:
    with ThreadPoolExecutor(2) as jobs:
        return list(jobs.map(make, files))


@functools.cache
def _version() -> str:
    return subprocess.run([compiler(), "-v"], capture_output=True, text=True, check=True).stderr


def digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:24]
