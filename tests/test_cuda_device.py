"""What only a real device can show: cuRAND's own random numbers, streams that run concurrently, graphs, torch
and JAX arrays, a second device, and more elements than 32 bits can count. These tests run with
FASTOPT_TEST_DEVICE=cupy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import DTYPES, bits, values
from step_cases import PLAIN, gradients, parameters

LENGTHS = (5000, 3, 70001)
MANY = 2**31 + 13

# Keeps the multiprocessor that runs it busy.
SPIN = """
extern "C" __global__ void spin(long long cycles) {
  const long long begin = clock64();
  while (clock64() - begin < cycles) {}
}
"""
LONG = 300_000_000  # cycles: more than a tenth of a second

# Word positions as NUMERICS.md defines them: subsequence index / 4, offset in words.
WORDS = """
#include <curand_kernel.h>
extern "C" __global__ void words(unsigned long long seed, unsigned long long offset,
                                 unsigned long long first, int count, uint4* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  curandStatePhilox4_32_10_t state;
  curand_init(seed, first + i, 4 * offset, &state);
  out[i] = curand4(&state);
}
"""


@pytest.fixture
def gpu(request):
    if os.environ.get("FASTOPT_TEST_DEVICE") != "cupy":
        pytest.skip("needs a CUDA device and FASTOPT_TEST_DEVICE=cupy")
    return request.getfixturevalue("cuda")


@pytest.fixture
def cupy(gpu):
    return gpu.cupy


@pytest.fixture
def cuda_torch(gpu, torch):
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def room_for(cupy, nbytes):
    cupy.get_default_memory_pool().free_all_blocks()
    if cupy.cuda.runtime.memGetInfo()[0] < nbytes:
        pytest.skip(f"needs {nbytes >> 30} GiB of device memory")


def lists(seed=0, dtype="float32"):
    """Return parameters and three lists of gradients for them."""
    rng = np.random.default_rng(seed)
    params = parameters(rng, LENGTHS, DTYPES[dtype])
    return params, [gradients(rng, params) for _ in range(3)]


# ---- random numbers ----


@cache
def words_kernel(arch):
    """Return the file of the compiled module, or None if it cannot be compiled."""
    folders = [Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "include"]
    folders += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/include"))
    found = [folder for folder in folders if (folder / "curand_kernel.h").exists()]
    if not shutil.which("nvcc") or not found:
        return None
    folder = Path(tempfile.mkdtemp())
    (folder / "words.cu").write_text(WORDS)
    command = ["nvcc", f"-arch=sm_{arch}", f"-I{found[0]}", "-cubin", "-o", "words.cubin", "words.cu"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "words.cubin"


@pytest.fixture
def curand(cupy):
    """Return a function that returns cuRAND's words for a seed and an offset, for `count` indices from the
    given first one on."""
    compiled = words_kernel(cupy.cuda.Device().compute_capability)
    if compiled is None:
        pytest.skip("needs nvcc and curand_kernel.h")
    kernel = cupy.RawModule(path=str(compiled)).get_function("words")

    def words(seed, offset, first, count):
        out = cupy.empty((count, 4), np.uint32)
        arguments = (np.uint64(seed), np.uint64(offset), np.uint64(first), np.int32(count), out)
        kernel((-(-count // 128),), (128,), arguments)
        return cupy.asnumpy(out)

    return words


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**64 - 1, 0x299F31D0A4093822])
@pytest.mark.parametrize("offset", [0, 1, 2**32 - 1, 2**32 + 5, 2**62 - 1])
@pytest.mark.parametrize("first", [0, 2**32 - 30, 2**62 - 64])
def test_words_match_curand(curand, seed, offset, first):
    ours = [F.philox4x32(seed=seed, offset=offset, index=first + i) for i in range(64)]
    assert curand(seed, offset, first, 64).tolist() == [list(map(int, four)) for four in ours]


@pytest.mark.parametrize("p", [0.1, 0.5, 2.0**-32])
def test_dropout_mask_matches_curand(gpu, curand, p):
    n, seed, offset = 1_000_003, 7, 2**33 + 1
    kept = curand(seed, offset, 0, n // 4 + 1).reshape(-1)[:n] >= round(p * 2**32)
    y, _ = F.dropout_forward(gpu.array(np.ones(n, np.float32)), p, seed=seed, offset=offset)
    assert ((gpu.host(y) != 0) == kept).all()


# ---- streams ----


def test_step_is_ordered_on_its_stream_and_does_not_block_the_host(gpu, cupy):
    """The gradient is written after a long kernel on the same stream, and a step that is queued behind both
    reads it."""
    params, grads = lists()
    host, there = fastopt.Adam(params, clip_norm=1.0), [gpu.array(p) for p in params]
    device = fastopt.Adam(there, clip_norm=1.0)
    device_grads = [gpu.array(np.full_like(g, np.nan)) for g in grads[0]]
    later = [[gpu.array(a) for a in g] for g in grads]
    spin = cupy.RawKernel(SPIN, "spin")
    spin((1,), (1,), (np.int64(1),))  # compiles it
    with gpu.new_stream():
        stream = cupy.cuda.get_current_stream()
        for g, new in zip(grads, later, strict=True):
            spin((1,), (1,), (np.int64(LONG),))
            for old, a in zip(device_grads, new, strict=True):
                old[...] = a
            device.step(device_grads)
            host.step(g)
        assert not stream.done
        assert [bits(gpu.host(a)) for a in there] == [bits(a) for a in params]


def test_step_waits_for_the_stream_in_the_interface_of_a_cupy_array(gpu, cupy):
    """Between libraries: the gradient's own interface names a stream that is still busy."""
    w, g = values(70001), values(70001, seed=1)
    there, grad, new = gpu.array(w), gpu.array(np.full_like(g, np.nan)), gpu.array(g)
    spin = cupy.RawKernel(SPIN, "spin")
    spin((1,), (1,), (np.int64(1),))
    cupy.cuda.runtime.deviceSynchronize()
    other = cupy.cuda.Stream(non_blocking=True)
    with other:
        spin((1,), (1,), (np.int64(LONG),))
        grad[...] = new
        about = grad.__cuda_array_interface__
    named = type("Named", (), {"__cuda_array_interface__": about})()
    with gpu.new_stream():
        F.sgd_step(there, named, lr=0.5)
        F.sgd_step(w, g, lr=0.5)
        assert bits(gpu.host(there)) == bits(w)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_current_stream(gpu, cuda_torch, dtype):
    torch = cuda_torch
    params, grads = lists(dtype=dtype)
    there = [to_torch(torch, p) for p in params]
    later = [[to_torch(torch, a) for a in g] for g in grads]
    device_grads = [torch.full_like(a, torch.nan) for a in there]
    host, device = fastopt.Adam(params), fastopt.Adam(there)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for g, new in zip(grads, later, strict=True):
            torch.cuda._sleep(LONG)
            for old, a in zip(device_grads, new, strict=True):
                old.copy_(a)
            device.step(device_grads)
            host.step(g)
    assert not stream.query()
    stream.synchronize()
    assert [bits(a.cpu()) for a in there] == [bits(to_torch(torch, p).cpu()) for p in params]
    assert all(m.is_cuda and m.dtype == there[0].dtype for m in device.m)


def to_torch(torch, a):
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(a).cuda()


def test_layers_accept_torch_tensors(gpu, cuda_torch):
    x, g = values((8, 5, 7, 9)), values(5, seed=1)
    there = to_torch(cuda_torch, x)
    y, saved = F.batch_norm_forward(there, to_torch(cuda_torch, g))
    want, host_saved = F.batch_norm_forward(x, g)
    assert bits(y.cpu()) == bits(cuda_torch.from_numpy(want))
    for got, expected in zip(
        F.batch_norm_backward(there, saved)[:2], F.batch_norm_backward(x, host_saved)[:2], strict=True
    ):
        assert bits(got.cpu()) == bits(cuda_torch.from_numpy(expected))
    dropped, _ = F.dropout_forward(there, 0.3, seed=1)
    assert bits(dropped.cpu()) == bits(cuda_torch.from_numpy(F.dropout_forward(x, 0.3, seed=1)[0]))


# ---- graphs ----


@pytest.mark.parametrize("rule", PLAIN)
def test_torch_graph(gpu, cuda_torch, rule):
    torch = cuda_torch
    params, (grads, *_) = lists()
    there, device_grads = ([to_torch(torch, a) for a in arrays] for arrays in (params, grads))
    host, device = (PLAIN[rule].make(p) for p in (params, there))
    host.clip_norm = device.clip_norm = 1.0
    device.step(device_grads)
    host.step(grads)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        device.step(device_grads)
    for i in range(30):
        if i == 10:
            host.lr = device.lr = host.lr / 2
        graph.replay()
        host.step(grads)
    torch.cuda.synchronize()
    assert [bits(a.cpu()) for a in there] == [bits(torch.from_numpy(p)) for p in params]
    assert device.step_count == 31


# ---- other libraries, another device ----


def test_cupy_bfloat16(gpu, cupy):
    if int(cupy.__version__.split(".")[0]) < 14:
        pytest.skip("CuPy has bfloat16 from version 14 on")
    params, grads = lists(dtype="bfloat16")
    there = [cupy.asarray(p) for p in params]
    host, device = fastopt.Adam(params), fastopt.Adam(there)
    for g in grads:
        host.step(g)
        device.step([cupy.asarray(a) for a in g])
    assert [bits(cupy.asnumpy(a)) for a in there] == [bits(p) for p in params]
    assert [bits(cupy.asnumpy(a)) for a in device.v] == [bits(v) for v in host.v]


def test_jax_gradients(gpu):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("this JAX has no CUDA")
    w, g = values(5000), values(5000, seed=1)
    there = gpu.array(w)
    F.sgd_step(there, jax.block_until_ready(jax.device_put(g, device)), lr=0.5)
    F.sgd_step(w, g, lr=0.5)
    assert bits(gpu.host(there)) == bits(w)


def test_a_second_device(gpu, cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two CUDA devices")
    params, grads = lists()
    with cupy.cuda.Device(1):
        there = [gpu.array(p) for p in params]
        device_grads = [[gpu.array(a) for a in g] for g in grads]
    host, device = (fastopt.Adam(p, clip_norm=1.0) for p in (params, there))
    for g, there_g in zip(grads, device_grads, strict=True):
        host.step(g)
        device.step(there_g)  # while device 0 is the current one
    assert cupy.cuda.runtime.getDevice() == 0
    assert all(m.device.id == 1 for m in device.m)
    with cupy.cuda.Device(1):
        assert [bits(gpu.host(a)) for a in there] == [bits(p) for p in params]


# ---- more elements than 32 bits can count ----

PLACES = (slice(0, 4096), slice(2**31 - 2048, 2**31 + 13))


def test_a_step_of_very_many_elements(gpu, cupy):
    room_for(cupy, 5 * MANY)
    w, g = (cupy.full(MANY, x, np.float16) for x in (1.0, 0.5))
    g[2**31 + 3] = 0.25
    F.sgd_step(w, g, lr=0.5)
    head, tail = (cupy.asnumpy(w[place]) for place in PLACES)
    assert (head == 0.75).all()
    assert np.flatnonzero(tail != 0.75).tolist() == [2048 + 3]
    assert tail[2048 + 3] == 0.875
    assert int((w != 0.75).sum()) == 1


def test_a_norm_of_very_many_elements(gpu, cupy):
    room_for(cupy, 3 * MANY)
    g = cupy.full(MANY, 0.5, np.float16)
    assert F.global_norm([g]) == (0.25 * MANY) ** 0.5


def test_dropout_of_very_many_elements(gpu, cupy):
    room_for(cupy, 5 * MANY)
    x = cupy.full(MANY, 1.5, np.float16)
    y = cupy.full(MANY, np.nan, np.float16)
    F.dropout_forward(x, 0.25, seed=5, offset=6, out=y)
    for place in PLACES:
        part = np.full(place.stop - place.start, 1.5, np.float16)
        want, _ = F.dropout_forward(part, 0.25, seed=5, offset=6, start=place.start)
        assert bits(cupy.asnumpy(y[place])) == bits(want)
    share = float((y != 0).mean(dtype=np.float64))
    assert abs(share - 0.75) < 6 * (0.25 * 0.75 / MANY) ** 0.5
