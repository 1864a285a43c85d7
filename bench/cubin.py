"""The kernels of a file of csrc/cuda, compiled for one architecture as the build does, and their resources.

Needs nvcc and nvdisasm (the toolkit's, or nvidia-cuda-nvdisasm from PyPI), and no GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.sass import Kernel, kernels

CUDA = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
PTX = "90"  # from which the code of all architectures since Hopper is generated


def tool(name: str) -> str | None:
    """Find a tool on the path or in one of NVIDIA's wheels."""
    wheels = (Path(folder) / "nvidia" for folder in sys.path)
    paths = (path for wheel in wheels for path in sorted(wheel.glob(f"*/bin/{name}")))
    return shutil.which(name) or next(map(str, paths), None)


def flags() -> list[str]:
    """Return the flags that CMake passes to nvcc."""
    (line,) = re.findall(r"\$\{gencode\} (-.*)>$", (CUDA / "CMakeLists.txt").read_text(), re.MULTILINE)
    return ["-std=c++20", "-O3", f"-I{CUDA.parent}", *line.split()]


@dataclass(frozen=True)
class Compiled:
    kernel: Kernel
    registers: int
    shared: int  # bytes per block


def compiled(file: str, arch: str = "90", ptx: str = PTX) -> list[Compiled]:
    """Compile a file of csrc/cuda and return its kernels."""
    with TemporaryDirectory() as folder:
        cubin = str(Path(folder) / "kernels.cubin")
        target = f"-gencode=arch=compute_{ptx},code=sm_{arch}"
        report = output(
            "nvcc", *flags(), target, "-cubin", "-Xptxas=-v", "-o", cubin, str(CUDA / f"{file}.cu")
        )
        code = output("nvdisasm", "-c", cubin)
    used = dict(re.findall(r"Compiling entry function '(\w+)'[\s\S]*?Used (.*)", report))
    return [
        Compiled(
            kernel,
            _number(r"(\d+) registers", used[kernel.name]),
            _number(r"(\d+) bytes smem", used[kernel.name]),
        )
        for kernel in kernels(code)
        if kernel.name in used
    ]


def output(name: str, *args: str) -> str:
    done = subprocess.run([tool(name) or name, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr}")
    return done.stdout + done.stderr


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0
