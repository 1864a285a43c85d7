"""The shim that runs device code on the host behaves as a device does, and reports errors that a device does
not report: deadlocked threads, missing barriers, stores out of bounds."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile

import pytest

pytest.importorskip("fcntl", reason="the shim is for POSIX systems")

from cuda_shim.build import SHIM, build, compiler

SELFTEST = [SHIM / "selftest.cu"]
SANITIZERS = {
    "fibers": ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "threads": ("-g", "-fsanitize=thread"),
}
CASES = (
    "reduce",
    "rotation",
    "clusters",
    "shuffles",
    "votes",
    "grid",
    "atomics",
    "bits",
    "memory",
    "devices",
    "errors",
    "counts",
    "graph",
    "uncapturable",
    "forked_graph",
)
REFUSED = {
    "divergent": ("threads 0 to 39: __syncthreads", "threads 40 to 63: __syncwarp", "never come"),
    "returned": ("threads 17 to 17: returned", "threads 18 to 63: __syncthreads", "never come"),
    "missing_lane": ("threads 4 to 31: __shfl_down_sync", "never come"),
    "left_out": ("a lane calls a warp's function with a mask that leaves it out",),
    "foreign_lane": ("a shuffle reads a lane that its mask leaves out",),
    "mixed": ("threads 0 to 15: __shfl_xor_sync", "threads 16 to 31: __shfl_sync", "never come"),
}


@functools.cache
def unavailable_reason(*flags: str) -> str:
    """Return why a program built with these flags does not run here, or an empty string."""
    try:
        command = [compiler(), *flags, "-x", "c++", "-"]
    except FileNotFoundError as missing:
        return str(missing)
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/program"
        built = subprocess.run([*command, "-o", program], input=b"int main() {}", capture_output=True)
        works = built.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0
    return "" if works else f"programs built with {' '.join(flags)} do not run here"


def run(mode: str, *cases: str) -> subprocess.CompletedProcess[str]:
    """Run cases of selftest.cu in a separate process, under the sanitizer of the mode."""
    flags = SANITIZERS[mode]
    if reason := unavailable_reason(*flags):
        pytest.skip(reason)
    program = build(flags, mode, SELFTEST, program=True)
    return subprocess.run(
        [program, *cases],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": ""},
    )


@functools.cache
def library() -> ctypes.CDLL:
    """Load the same cases into this process, without a sanitizer."""
    if reason := unavailable_reason():
        pytest.skip(reason)
    loaded = ctypes.CDLL(str(build(sources=SELFTEST)))
    loaded.selftest.restype = ctypes.c_bool
    return loaded


# ---- what works ----


@pytest.mark.parametrize("case", CASES)
def test_fibers_behave_like_a_device(case):
    assert library().selftest(case.encode())


@pytest.mark.parametrize("mode", SANITIZERS)
def test_sanitizers_find_nothing(mode):
    done = run(mode, *CASES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(CASES)


def test_python_can_call_the_runtime_by_name():
    loaded, p = library(), ctypes.c_void_p()
    loaded.shim_reset_counts()
    assert loaded.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(64)) == 0
    assert ctypes.string_at(p.value, 64) == b"\xff" * 64
    assert (loaded.shim_allocations(), loaded.shim_launches()) == (1, 0)
    assert loaded.cudaFree(p) == 0


def test_two_libraries_share_nothing(tmp_path):
    """This includes what C++ has once per process: inline variables and statics of templates."""
    one = library()
    other = ctypes.CDLL(shutil.copy(one._name, tmp_path / "other.so"))
    one.shim_reset_counts()
    assert other.selftest(b"first_run")
    assert (one.shim_launches(), other.shim_launches()) == (0, 1)
    assert one.selftest(b"first_run")


# ---- what is reported ----


@pytest.mark.parametrize("mode", SANITIZERS)
@pytest.mark.parametrize("case", REFUSED)
def test_deadlocked_threads_are_named(case, mode):
    done = run(mode, case)
    assert done.returncode < 0, "it must abort"
    assert "block (0, 0, 0) of (2, 1, 1)" in done.stderr
    assert "misbehave(" in done.stderr, "the kernel is named"
    for words in REFUSED[case]:
        assert words in done.stderr


def test_a_missing_barrier_is_a_race():
    done = run("threads", "no_barrier")
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
    assert "sum_blocks<false>" in done.stderr


@pytest.mark.parametrize(("mode", "words"), [("fibers", "out.data[i] == "), ("threads", "data race")])
def test_block_must_not_exit_while_its_cluster_reads_it(mode, words):
    done = run(mode, "left_early")
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(
    ("case", "words"),
    [("beyond", "heap-buffer-overflow"), ("beyond_stack", "stack-buffer-overflow")],
)
def test_a_store_out_of_bounds_is_found(case, words):
    done = run("fibers", case)
    assert done.returncode != 0
    assert f"AddressSanitizer: {words}" in done.stderr


@pytest.mark.parametrize(
    ("case", "words"), [("misaligned", "is not aligned"), ("freed_twice", "is no allocation")]
)
def test_invalid_use_of_memory_aborts(case, words):
    done = run("fibers", case)
    assert done.returncode < 0
    assert words in done.stderr


def test_compiler_errors_are_raised_with_their_message(tmp_path):
    if reason := unavailable_reason():
        pytest.skip(reason)
    source = tmp_path / "wrong.cu"
    source.write_text("#include <cuda_runtime.h>\n__global__ void f() { no_such_name(); }\n")
    with pytest.raises(RuntimeError, match="no_such_name"):
        build(sources=[source])
