"""What only a driver can confirm: captures in the global mode, which forbids synchronous allocation to all
threads, memory that is freed during a capture, and threads. Runs on a real device, with
FASTOPT_TEST_DEVICE=cupy. Each kernel runs once before it is captured, since the first launch may load it."""

from __future__ import annotations

import contextlib
import gc
import threading

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import bits


@pytest.fixture
def cupy(cuda):
    if cuda.name != "cupy":
        pytest.skip("needs a CUDA device: FASTOPT_TEST_DEVICE=cupy")
    return cuda.cupy


@contextlib.contextmanager
def captured(cupy, stream):
    """Capture what is queued on `stream` into a graph, which is appended to the list."""
    graphs = []
    gc.collect()  # what other tests have left must not be freed during the capture
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
    try:
        yield graphs
    finally:
        graphs.append(stream.end_capture())


def values(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_step_with_a_strided_gradient(cuda, cupy):
    w, g = values((40, 30), 0), values((30, 40), 1)
    there, start, grad = cuda.array(w), cuda.array(w), cuda.array(g).T
    host, device = (fastopt.Adam(p, lr=0.1, on_nonfinite="skip") for p in (w, there))
    host.step(w.copy())
    with cupy.cuda.Stream(non_blocking=True) as stream:
        device.step(start)  # has the other layout, so that the captured step allocates
        with captured(cupy, stream) as graphs:
            device.step(grad)
        for _ in range(3):
            graphs[0].launch(stream)
            host.step(g.T)
        stream.synchronize()
        assert device.step_count == 4
    assert bits(cuda.host(there)) == bits(w)


def test_layer_and_its_saved_arrays(cuda, cupy):
    x, dy = values((64, 8), 0), values((64, 8), 1)
    there, back, out, dx = (cuda.array(a) for a in (x, dy, x, x))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        _, saved = F.batch_norm_forward(there, activation="relu", out=out)
        F.batch_norm_backward(back, saved, out=dx)
        with captured(cupy, stream) as graphs:
            saved = None  # freed only after the capture
            gc.collect()
            _, saved = F.batch_norm_forward(there, activation="relu", out=out)
            F.batch_norm_backward(back, saved, out=dx)
        for _ in range(2):
            graphs[0].launch(stream)
        stream.synchronize()
    y, host_saved = F.batch_norm_forward(x, activation="relu")
    assert bits(cuda.host(out)) == bits(y)
    assert bits(cuda.host(dx)) == bits(F.batch_norm_backward(dy, host_saved).dx)


def test_synchronizing_calls_are_rejected_and_the_capture_continues(cuda, cupy):
    w, g = cuda.array(values(100, 0)), cuda.array(values(100, 1))
    opt = fastopt.SGD(w, lr=0.5, on_nonfinite="skip")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        opt.step(g)
        with captured(cupy, stream) as graphs:
            with pytest.raises(RuntimeError, match="waits for the device"):
                F.global_norm([g])
            with pytest.raises(RuntimeError, match="before or after"):
                opt.step_count = 7
            opt.step(g)
        graphs[0].launch(stream)
        stream.synchronize()
        assert opt.step_count == 2


def test_optimizer_is_collected_during_a_capture(cuda, cupy):
    w, v, g = (cuda.array(values(100, i)) for i in range(3))
    old, opt = (fastopt.SGD(p, lr=0.5, on_nonfinite="skip") for p in (v, w))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        old.step(g)
        opt.step(g)
        with captured(cupy, stream) as graphs:
            del old
            gc.collect()
            opt.step(g)
        graphs[0].launch(stream)
        stream.synchronize()
        assert opt.step_count == 2


def test_default_stream_after_the_capture_of_a_blocking_stream(cuda, cupy):
    x = values((64, 8), 0)
    there, out = cuda.array(x), cuda.array(x)
    kept = [F.batch_norm_forward(there, out=out)]
    with cupy.cuda.Stream(non_blocking=False) as stream, captured(cupy, stream):
        kept.clear()
        gc.collect()
    F.batch_norm_forward(there, out=out)
    assert bits(cuda.host(out)) == bits(F.batch_norm_forward(x)[0])


def test_two_threads_with_an_optimizer_and_a_stream_each(cuda, cupy):
    hosts = [values(100_000, i) for i in range(2)]
    theres = [cuda.array(w) for w in hosts]
    grads = [cuda.array(values(100_000, 2 + i)) for i in range(2)]
    errors = []

    def work(there, grad):
        try:
            with cupy.cuda.Stream(non_blocking=True) as stream:
                opt = fastopt.Adam(there, lr=0.1, clip_norm=1.0)
                for _ in range(100):
                    opt.step(grad)
                stream.synchronize()
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=a) for a in zip(theres, grads, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for i, w in enumerate(hosts):
        opt = fastopt.Adam(w, lr=0.1, clip_norm=1.0)
        for _ in range(100):
            opt.step(values(100_000, 2 + i))
        assert bits(cuda.host(theres[i])) == bits(w)
