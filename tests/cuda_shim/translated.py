"""The engine with its kernels as nvcc compiles them (ptx.py), instead of a C++ compiler. The host side is the
same; a launch finds the translation by the kernel's address."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

from . import nvcc
from .build import CSRC, FLAGS, SHIM, build, compiled, digest, once, two_at_a_time

KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
# Integers wrap around and memory may be read as another type, as in PTX. Nothing is gained by more than -Og.
CXX_FLAGS = (*FLAGS, "-Og", "-w", "-fwrapv", "-mf16c")


class Entry(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p))


def load(flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the library. `flags` are passed to nvcc after those of the build. Raises RuntimeError with the
    compiler's message if a compiler fails."""
    objects = two_at_a_time(lambda kernel: translated(kernel, flags), KERNELS)
    path = build(others=objects)
    lib = ctypes.CDLL(str(path))
    found = [entry for kernel in KERNELS for entry in _entries(lib, _table(kernel))]
    addresses = _functions(lib, path)
    for name, (mangled, function) in zip(_demangled([m for m, _ in found]), found, strict=True):
        if len(addresses.get(name, [])) != 1:
            raise RuntimeError(f"not one function of the host's is {name}, {mangled}")
        lib.shim_translate(ctypes.c_void_p(addresses[name][0]), ctypes.c_void_p(function))
    return lib


def _table(kernel: Path) -> str:
    return f"ptx_{kernel.stem}"


def ptx_of(kernel: Path, arch: str = "90", flags: tuple[str, ...] = ()) -> Path:
    """Return the PTX that nvcc generates from a file, which is generated once. A build for Hopper contains
    the PTX of 90, which leaves nothing out."""
    headers = sorted(CSRC.rglob("*.hpp"))
    told = (f"-arch=compute_{arch}", "-ptx", *flags)
    key = digest(nvcc.version(), *nvcc.FLAGS, *told, *(h.read_bytes() for h in (kernel, *headers)))
    return once(f"{kernel.stem}-{key}.ptx", nvcc.command(kernel, *told))


def translated(kernel: Path, flags: tuple[str, ...]) -> Path:
    """Return the object file, compiled by way of PTX and C++."""
    ptx = ptx_of(kernel, flags=flags)
    program = SHIM / "ptx.py"
    key = digest(ptx.read_bytes(), program.read_bytes())
    source = once(f"{kernel.stem}-{key}.cpp", [sys.executable, str(program), str(ptx), _table(kernel)])
    return compiled(source, CXX_FLAGS)


def _entries(lib: ctypes.CDLL, table: str) -> list[tuple[str, int]]:
    entry, found = ctypes.pointer(Entry.in_dll(lib, table)), []
    while name := entry[len(found)].name:
        found.append((name.decode(), entry[len(found)].function))
    return found


def _functions(lib: ctypes.CDLL, path: Path) -> dict[str, list[int]]:
    """Return the addresses of the library's own functions by name, including those with internal linkage."""
    said = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^(\w+) [tTW] (\w+)$", said, re.MULTILINE)
    offsets, names = [int(offset, 16) for offset, _ in lines], [name for _, name in lines]
    exported = "fastopt_cuda_backend"
    base = ctypes.cast(lib[exported], ctypes.c_void_p).value - offsets[names.index(exported)]
    found: dict[str, list[int]] = {}
    for offset, name in zip(offsets, _demangled(names), strict=True):
        found.setdefault(name, []).append(base + offset)
    return found


def _demangled(names: list[str]) -> list[str]:
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[: len(names)]
