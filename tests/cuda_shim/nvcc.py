"""nvcc, as csrc/cuda/CMakeLists.txt has it compile the kernels."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

from .build import CSRC

NVCC = shutil.which("nvcc")
_CMAKE = (CSRC / "cuda" / "CMakeLists.txt").read_text()
ARITHMETIC = re.search(r"-fmad=\S+ -ftz=\S+ -prec-div=\S+ -prec-sqrt=\S+", _CMAKE)[0].split()
FLAGS = ("-std=c++20", "-O3", *ARITHMETIC, f"-I{CSRC}")


def command(path: Path, *flags: str) -> list[str]:
    return [str(NVCC), *FLAGS, *flags, str(path)]


@functools.cache
def version() -> str:
    return subprocess.run([str(NVCC), "--version"], capture_output=True, text=True, check=True).stdout
