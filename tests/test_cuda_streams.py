"""Streams are created and destroyed between the calls of fastopt, and so is the memory that it keeps on a
device. Runs with the shim, which rejects a stream that was destroyed and detects what would invalidate a
capture."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
import time

import numpy as np
import pytest

import fastopt
from fake_cupy import Cupys, Stream
from fastopt import functional as F
from optimizers_table import bits

GLOBAL = 0  # the strictest capture mode


@pytest.fixture
def as_cupys(shim, monkeypatch):
    return Cupys(shim, monkeypatch)


def bytes_held(shim):
    """Return the number of bytes allocated on the device once garbage is collected."""
    gc.collect()
    shim.lib.shim_bytes_held.restype = ctypes.c_int64
    return shim.lib.shim_bytes_held()


def test_cached_gradient_uses_the_current_stream(shim, as_cupys):
    """The cached stream was that of the previous step: waiting for it now would invalidate a capture."""
    w, g = as_cupys(np.ones(3, np.float32)), as_cupys(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=1.0)
    stream = Stream(as_cupys)
    opt.step(g)
    stream = Stream(as_cupys)  # the optimizer keeps the old one alive
    replay = shim.capture(lambda: opt.step(g))
    replay()
    stream.leave()
    assert shim.host(w).tolist() == [0.0] * 3


def wait_count(shim):
    shim.lib.shim_waits.restype = ctypes.c_int64
    return shim.lib.shim_waits()


def test_step_waits_for_its_optimizers_work_on_other_streams(shim, as_cupys):
    """A rate is set on the stream that is current then. The shim does not reorder work, but counts the
    waits."""
    w, g = as_cupys(np.ones(3, np.float32)), as_cupys(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=0.5)
    shim.counts()
    stream = Stream(as_cupys)
    opt.step(g)  # waits for what was sent when the optimizer was made
    assert wait_count(shim) == 1
    opt.step(g)
    assert wait_count(shim) == 1
    stream.leave()
    del stream  # the optimizer keeps it until it has waited for it
    opt.lr = 1.0
    assert wait_count(shim) == 2
    stream = Stream(as_cupys)
    replay = shim.capture(lambda: opt.step(g))  # a capture waits for nothing outside it
    assert wait_count(shim) == 2
    replay()
    stream.leave()
    assert opt.step_count == 3
    assert wait_count(shim) == 3
    assert shim.host(w).tolist() == [0.0] * 3


@pytest.mark.parametrize("count", ["step_count", "skipped_steps"])
def test_setting_a_count_is_ordered_between_two_steps(shim, as_cupys, count):
    """It is queued on the stream that is current then, where a graph may be launched next."""
    w, g = as_cupys(np.ones(3, np.float32)), as_cupys(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=0.5)
    opt.step(g)
    stream = Stream(as_cupys)
    shim.counts()
    setattr(opt, count, 5)
    assert wait_count(shim) == 1
    stream.leave()
    opt.step(g)
    assert wait_count(shim) == 2


def test_every_step_waits_for_the_stream_of_another_library(shim, as_cupys):
    """This includes known gradients: what their library has queued on another stream comes before the step.
    What it queues next, which may overwrite the gradient, waits for the step."""
    w, g = shim.array(np.ones(3, np.float32)), as_cupys(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=1.0)
    stream, shim.stream = Stream(as_cupys), 1  # the stream of w
    shim.counts()
    for expected in (2, 4):
        opt.step(g)
        assert wait_count(shim) == expected
    stream.leave()


def test_no_stream_waits_for_a_failed_step_and_the_next_step_waits_again(shim, as_cupys):
    """The failed step had waited for a gradient of another library, and then ran out of memory."""
    w, g = shim.array(np.ones((3, 4), np.float32)), as_cupys(np.full((4, 3), 0.5, np.float32).T)
    opt = fastopt.SGD(w, lr=1.0)
    stream, shim.stream = Stream(as_cupys), 1
    shim.lib.shim_fail_allocation(ctypes.c_int64(0))
    with pytest.raises(RuntimeError, match="no memory left"):
        opt.step(g)
    shim.lib.shim_fail_allocation(ctypes.c_int64(-1))
    shim.counts()
    opt.step(g)
    assert wait_count(shim) == 2
    stream.leave()
    assert shim.host(w).tolist() == [[0.5] * 4] * 3


def test_optimizers_may_be_created_and_freed_during_a_capture(shim):
    """Python decides when an optimizer is freed, since it and its groups refer to each other. SGD has no
    arrays of its own."""
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    w, v, g = (shim.array(np.ones(3, np.float32)) for _ in range(3))
    opt = fastopt.SGD(w)
    before = bytes_held(shim)
    assert shim.lib.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    assert shim.lib.cudaStreamBeginCapture(stream, GLOBAL) == 0
    other = fastopt.SGD(v, lr=1.0)
    assert bytes_held(shim) > before
    del opt
    assert bytes_held(shim) == before
    assert shim.lib.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0
    other.step(g)
    assert shim.host(v).tolist() == [0.0] * 3


@pytest.mark.parametrize("goes_back", [False, True])
def test_saved_arrays_keep_their_stream_alive(shim, as_cupys, goes_back):
    """The memory is freed on the stream that used it last."""
    x, g = (np.random.default_rng(i).normal(size=(6, 4)).astype(np.float32) for i in range(2))
    there, out = as_cupys(x), shim.array(g)
    before = bytes_held(shim)
    streams = [Stream(as_cupys)]
    _, saved = F.batch_norm_forward(there, activation="relu", out=out)
    if goes_back:
        streams.append(Stream(as_cupys))
        F.batch_norm_backward(there, saved, out=out)
    streams.pop().leave()
    streams.clear()
    _, host_saved = F.batch_norm_forward(x, activation="relu")
    assert bits(saved.mean) == bits(host_saved.mean)
    del saved
    assert bytes_held(shim) == before


def test_memory_of_the_default_stream_may_be_released_during_a_capture(shim):
    """The captured stream is one that the default stream would wait for: freeing memory there would
    invalidate the capture."""
    x, out = (shim.array(np.ones((6, 4), np.float32)) for _ in range(2))
    before = bytes_held(shim)
    kept = [F.batch_norm_forward(x, out=out)]
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    assert shim.lib.cudaStreamCreate(ctypes.byref(stream)) == 0
    assert shim.lib.cudaStreamBeginCapture(stream, GLOBAL) == 0
    kept.clear()
    assert bytes_held(shim) > before
    assert shim.lib.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0
    F.batch_norm_forward(x, out=out)
    assert bytes_held(shim) == before


def test_memory_released_during_a_capture_is_freed_after_it(shim):
    x, out = (shim.array(np.ones((6, 4), np.float32)) for _ in range(2))
    with shim.new_stream():
        before = bytes_held(shim)
        _, saved = F.batch_norm_forward(x, activation="relu", out=out)
        with_saved = bytes_held(shim)

        def work():
            nonlocal saved
            saved = None

        shim.capture(work)
        assert bytes_held(shim) == with_saved > before
        _, saved = F.batch_norm_forward(x, activation="relu", out=out)
        assert bytes_held(shim) == with_saved
        del saved
        assert bytes_held(shim) == before


@contextlib.contextmanager
def device_waits_for_python(shim):
    """Make the device finish only after another Python thread could run, as with a host function that a
    stream calls."""
    read, write = os.pipe()
    other = threading.Thread(target=lambda: (time.sleep(0.05), os.write(write, b"done")))
    shim.lib.shim_wait_on(read)
    other.start()
    try:
        yield
    finally:
        other.join()
        shim.lib.shim_wait_on(-1)
        os.close(read), os.close(write)


WAITS = {
    "a count": lambda opt, **_: opt.skipped_steps,
    "a scope": lambda opt, **_: setattr(opt, "clip_scope", "tensor"),
    "an optimizer that goes": lambda optimizers, **_: optimizers.clear(),
    "saved statistics": lambda saved, **_: saved.mean,
    "sums backward": lambda x, saved, **_: F.batch_norm_backward_reduce(x, saved),
    "moments": lambda x, **_: F.batch_norm_moments(x),
    "a norm": lambda x, **_: F.global_norm([x]),
}


@pytest.mark.parametrize("wait", WAITS)
def test_waiting_for_the_device_releases_the_gil(shim, wait):
    x = shim.array(np.ones((6, 4), np.float32))
    optimizers = [fastopt.SGD(shim.array(np.ones((6, 4), np.float32)), on_nonfinite="skip")]
    optimizers[0].step(x)
    _, saved = F.batch_norm_forward(x)
    shim.counts()
    with device_waits_for_python(shim):
        WAITS[wait](x=x, saved=saved, opt=optimizers[0], optimizers=optimizers)
        gc.collect()
    assert shim.counts()["synchronisations"] > 0
    assert shim.lib.shim_waited_in_vain() == 0


def test_step_waits_for_another_thread_that_reads_a_count(shim):
    opt = fastopt.SGD(shim.array(np.ones(3)), lr=0.25, on_nonfinite="skip")
    g, counted = shim.array(np.ones(3)), []
    opt.step(g)
    with device_waits_for_python(shim):
        logger = threading.Thread(target=lambda: counted.append(opt.step_count))
        logger.start()
        time.sleep(0.02)
        opt.step(g)
        logger.join()
    assert (counted, opt.step_count) == ([1], 2)


def test_failed_free_does_not_abort(shim):
    """As when the device is lost, or the process is the child of a fork."""
    x = shim.array(np.ones((6, 4), np.float32))
    _, saved = F.batch_norm_forward(x)
    shim.lib.shim_set_devices(-1)
    try:
        del saved
        gc.collect()
    finally:
        shim.lib.shim_set_devices(2)
    F.batch_norm_forward(x)  # the next call does not report it


def test_arrays_on_another_device_create_no_context_on_the_first(shim):
    """In a thread that has no context: a context takes hundreds of megabytes."""

    def work():
        opt = fastopt.SGD(w, lr=0.5, clip_norm=1.0, on_nonfinite="skip")
        opt.step(x)
        _, saved = F.batch_norm_forward(x, activation="relu", out=out)
        F.batch_norm_backward(x, saved, out=out)
        F.dropout_forward(x, 0.5, seed=1, offset=0, out=out)
        F.global_norm([x])
        del opt, saved
        gc.collect()
        found.append(shim.lib.shim_contexts())

    found, stream = [], ctypes.c_void_p()
    shim.lib.cudaSetDevice(1)
    shim.lib.cudaStreamCreateWithFlags(ctypes.byref(stream), 1)
    w, x, out = (shim.array(np.ones((6, 4), np.float32)) for _ in range(3))
    before, shim.stream = shim.stream, stream.value
    worker = threading.Thread(target=work)
    shim.lib.shim_contexts()
    try:
        worker.start()
        worker.join()
    finally:
        shim.lib.cudaSetDevice(0)
        shim.stream = before
    assert found == [0b10]


def test_sums_of_empty_arrays_are_on_the_device(shim):
    """Empty arrays have no device, but what forward has saved for them has one."""
    x, gamma = shim.array(np.ones((0, 3, 4), np.float32)), shim.array(np.ones(3, np.float32))
    _, saved = F.batch_norm_forward(x, gamma, single_value="zero_var")
    shim.counts()
    sums = F.batch_norm_backward_reduce(x, saved)
    assert shim.counts()["launches"] > 0
    assert [s.tolist() for s in sums] == [[0.0] * 3] * 2
