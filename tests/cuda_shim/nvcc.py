"""nvcc, with the flags of the build."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from .build import CSRC

sys.path.append(str(CSRC.parent))

from bench import cubin

NVCC = shutil.which("nvcc")
FLAGS = tuple(cubin.flags())


def command(path: Path, *flags: str) -> list[str]:
    return [str(NVCC), *FLAGS, *flags, str(path)]


@functools.cache
def version() -> str:
    return subprocess.run([str(NVCC), "--version"], capture_output=True, text=True, check=True).stdout
