"""The device code as nvcc compiles it: no spills, no local memory, vectors of 16 bytes, and no double in a
kernel of float32. Needs nvcc, not a GPU; for one architecture, from Turing's PTX and Hopper's, which leaves out
nothing that the others' has."""

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
    """The PTX of each kernel, by its mangled name."""
    text = ptx_of(path, arch).read_text()
    starts = [m.start() for m in re.finditer(r"^\.visible \.entry|^\.entry", text, re.MULTILINE)]
    parts = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    return {re.search(r"\.entry (\w+)", part)[1]: part for part in parts}


@pytest.mark.parametrize("storage", ["float16", "bfloat16", "float32", "float16_wide", "bfloat16_wide"])
def test_steps_of_float32_know_no_double_and_move_16_bytes(storage: str) -> None:
    kernels = kernels_of(CUDA / f"step_{storage}.cu")
    assert len(kernels) == 14  # rules
    for name, ptx in kernels.items():
        assert not re.search(r"\.f64\b", ptx), name
        assert re.search(r"ld\.(global\.)?(cs\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert re.search(r"st\.(global\.)?(c[gs]\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert ".local" not in ptx, name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_no_byte_is_stored_of_what_was_just_rounded_to_16_bits(path: Path) -> None:
    """ptxas 13.0 makes machine code of it that converts the number to an integer instead: PTX, which the shim
    runs, is right, and a device was wrong."""
    for name, ptx in kernels_of(path).items():
        rounded = set(re.findall(r"cvt\.rn\.b?f16\.f32\s+(%\w+)", ptx))
        assert not rounded & set(re.findall(r"\bst\.\S*[us]8\s+\[.*\], (%\w+);", ptx)), name


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_a_kernel_waits_for_the_one_before_it_and_then_calls_the_next(path: Path) -> None:
    """Launches may overlap from 9.0 on: who read memory before it waits would read what is not written yet."""
    batch_norm = {"batch_norm_sums", "batch_norm_smem", "batch_norm_finish", "batch_norm_flat"}
    for name, ptx in kernels_of(path).items():
        before, wait, after = ptx.partition("griddepcontrol.wait;")
        assert wait, name
        if path.stem in batch_norm:
            works_ahead(path.stem, before, after)
            continue
        assert not re.search(r"\$L_|\b(bra|ret|bar|atom|red)\b|\b(ld|st)\.(?!param)", before), name
        assert after.count("griddepcontrol.launch_dependents;") == 1, name


def works_ahead(stem: str, before: str, after: str) -> None:
    """BatchNorm weighs neighbours before its turn, in shared memory. What comes after its sums reads, too: they
    waited for all who could still be writing that. Who finishes channels calls the next one first."""
    reads = stem in ("batch_norm_finish", "batch_norm_flat")
    assert not re.search(r"\b(ret|bar|atom|red)\b|\bst\.(?!param|shared)", before)
    assert reads or not re.search(r"\bld\.(?!param|shared)", before)
    assert ("griddepcontrol.launch_dependents;" in before) == (stem == "batch_norm_finish")
    assert reads or after.count("griddepcontrol.launch_dependents;") == 1
    assert after.count("griddepcontrol.launch_dependents;") >= 1


@pytest.mark.parametrize("file", ["batch_norm_flat", "dropout"])
def test_elementwise_layers_of_float32_know_no_double_and_move_16_bytes(file: str) -> None:
    """Those of double and those that go element by element are left out by name."""
    kernels = kernels_of(CUDA / f"{file}.cu")
    apart = re.compile(r"Li1E|flatId|drop_allId")
    flat = {n: ptx for n, ptx in kernels.items() if not apart.search(n)}
    assert len(flat) >= 3  # float16, bfloat16, float32
    for name, ptx in flat.items():
        assert not re.search(r"\b(?:add|mul|div|sub|fma|sqrt)\.\S*f64\b", ptx), name
        assert re.search(r"ld\.(global\.)?(cs\.)?(v4\.\w32|v2\.\w64)", ptx), name
        assert re.search(r"st\.(global\.)?(c[gs]\.)?(v4\.\w32|v2\.\w64)", ptx), name
