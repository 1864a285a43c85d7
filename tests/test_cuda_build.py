"""The device code as nvcc compiles it: no spills, no local memory, 16-byte vector accesses, and no double
precision in a float32 kernel. This needs nvcc, but no GPU. The code is compiled for one architecture, from
the PTX of Turing and of Hopper; the latter includes everything that the others' PTX has."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="the shim is for POSIX systems")

from cuda_shim.nvcc import NVCC, command
from cuda_shim.translated import KERNELS, ptx_of

CUDA = Path(__file__).parents[1] / "csrc" / "cuda"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NVCC is None, reason="nvcc is not on the path")]


def nvcc(path: Path, *flags: str) -> str:
    done = subprocess.run(command(path, *flags), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("ptx", ["75", "90"])
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_no_kernel_spills_or_uses_local_memory(path: Path, ptx: str, tmp_path: Path) -> None:
    said = nvcc(
        ptx_of(path, ptx), "-arch=sm_90", "-cubin", "-Xptxas=-v", "-o", str(tmp_path / "a.cubin")
    )
    functions = re.findall(r"Function properties for (\w+)\n\s*(.*)", said)
    assert {name for name, _ in functions} >= set(kernels_of(path, ptx))
    spilled = {name: text for name, text in functions if set(re.findall(r"\d+", text)) != {"0"}}
    assert not spilled


def kernels_of(path: Path, arch: str = "90") -> dict[str, str]:
    """Return the PTX of each kernel, by its mangled name."""
    text = ptx_of(path, arch).read_text()
    starts = [m.start() for m in re.finditer(r"^\.visible \.entry|^\.entry", text, re.MULTILINE)]
    parts = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    return {re.search(r"\.entry (\w+)", part)[1]: part for part in parts}


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32", "float16_wide", "bfloat16_wide"])
def test_float32_steps_use_16_byte_vectors_and_no_double(storage: str) -> None:
    kernels = kernels_of(CUDA / f"step_{storage}.cu")
    assert len(kernels) == 14  # rules
    for name, ptx in kernels.items():
        assert not re.search(r"\.f64\b", ptx), name
        assert re.search(r"ld\.(global\.)?(cs\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert re.search(r"st\.(global\.)?(c[gs]\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert ".local" not in ptx, name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_values_rounded_to_16_bits_are_not_stored_as_bytes(path: Path) -> None:
    """From such PTX, ptxas 13.0 generates machine code that converts the number to an integer instead: the
    PTX, which the shim runs, is right, but the result on a device was wrong."""
    for name, ptx in kernels_of(path).items():
        rounded = set(re.findall(r"cvt\.rn\.b?f16\.f32\s+(%\w+)", ptx))
        assert not rounded & set(re.findall(r"\bst\.\S*[us]8\s+\[.*\], (%\w+);", ptx)), name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kernel_waits_for_the_previous_one_and_then_launches_dependents(path: Path) -> None:
    """From compute capability 9.0 on, launches may overlap: a kernel that read memory before it waits could
    read data that are not written yet."""
    batch_norm = {"batch_norm_sums", "batch_norm_smem", "batch_norm_finish", "batch_norm_flat"}
    for name, ptx in kernels_of(path).items():
        before, wait, after = ptx.partition("griddepcontrol.wait;")
        assert wait, name
        if path.stem in batch_norm:
            check_work_before_the_wait(path.stem, before, after)
            continue
        assert not re.search(r"\$L_|\b(bra|ret|bar|atom|red)\b|\b(ld|st)\.(?!param)", before), name
        assert after.count("griddepcontrol.launch_dependents;") == 1, name


def check_work_before_the_wait(stem: str, before: str, after: str) -> None:
    """Check a BatchNorm kernel, which computes weights of neighbors in shared memory before it waits. The
    kernels that follow the sums also read memory before they wait: the sums have waited for every kernel that
    could still be writing it. The kernel that finishes channels launches its dependents before it waits."""
    reads = stem in ("batch_norm_finish", "batch_norm_flat")
    assert not re.search(r"\b(ret|bar|atom|red)\b|\bst\.(?!param|shared)", before)
    assert reads or not re.search(r"\bld\.(?!param|shared)", before)
    assert ("griddepcontrol.launch_dependents;" in before) == (stem == "batch_norm_finish")
    assert reads or after.count("griddepcontrol.launch_dependents;") == 1
    assert after.count("griddepcontrol.launch_dependents;") >= 1


@pytest.mark.parametrize("file", ["batch_norm_flat", "dropout"])
def test_float32_elementwise_layers_use_16_byte_vectors_and_no_double(file: str) -> None:
    """Kernels of float64 and kernels that process single elements are excluded by name."""
    kernels = kernels_of(CUDA / f"{file}.cu")
    apart = re.compile(r"Li1E|flatId|drop_allId")
    flat = {n: ptx for n, ptx in kernels.items() if not apart.search(n)}
    assert len(flat) >= 3  # float16, bfloat16, float32
    for name, ptx in flat.items():
        assert not re.search(r"\b(?:add|mul|div|sub|fma|sqrt)\.\S*f64\b", ptx), name
        assert re.search(r"ld\.(global\.)?(cs\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert re.search(r"st\.(global\.)?(c[gs]\.)?(v4\.\w32|v2\.\w64)", ptx), name
