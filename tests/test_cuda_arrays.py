"""CUDA arrays as arguments: which ones are accepted, on which device and stream the work runs, which are
rejected (always before anything is written), and the messages where CUDA is not available."""

from __future__ import annotations

import copy
import ctypes
import gc
import re
import subprocess
import sys
import weakref

import numpy as np
import pytest

import fastopt
from fake_cupy import Cupys, Stream
from fastopt import _core
from fastopt import functional as F
from optimizers_table import bits


def with_interface(array, **about):
    """Return the same array with other entries in its ``__cuda_array_interface__``."""
    other = copy.copy(array)
    interface = {**array.__cuda_array_interface__, **about}
    other.__class__ = type("Changed", (type(array),), {"__cuda_array_interface__": interface})
    return other


class OnlyDLPack:
    """A CUDA array that supports only DLPack."""

    def __init__(self, array, device=0, kind=2, offset=0):
        self.array, self.device, self.kind, self.offset = array, device, kind, offset

    def __dlpack_device__(self):
        return (self.kind, self.device)

    def __dlpack__(self, *, stream=None, max_version=None):
        assert stream == 1  # the legacy stream, explicitly: torch takes None for no stream at all
        capsule = self.array.view.__dlpack__(max_version=(1, 0))
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        where = ctypes.c_int32 * 2  # follows version, context, deleter, flags and data
        tensor = pointer(capsule, b"dltensor_versioned")
        where.from_address(tensor + 40)[:] = [self.kind, self.device]
        ctypes.c_uint64.from_address(tensor + 72).value += self.offset
        return capsule


# ---- accepted arrays ----


def test_arrays_with_only_dlpack_are_accepted(shim):
    w = np.arange(1.0, 9.0, dtype=np.float32)
    there, grad = shim.array(w), OnlyDLPack(shim.array(w))
    F.sgd_step(there, grad, lr=0.5)
    F.sgd_step(OnlyDLPack(there), grad, lr=0.25)
    assert bits(shim.host(there)) == bits(w * np.float32(0.25))


def test_managed_memory_is_accepted_through_dlpack(shim):
    """Its DLPack device type is 13."""
    w = shim.array(np.ones(3, np.float32))
    F.sgd_step(OnlyDLPack(w, kind=13), OnlyDLPack(shim.array(np.ones(3, np.float32)), kind=13), lr=0.5)
    assert shim.host(w).tolist() == [0.5] * 3


def test_empty_arrays_have_no_device(cuda):
    w = [np.ones(3, np.float32), np.ones((0, 4), np.float32)]
    there = [cuda.array(a) for a in w]
    opt = fastopt.Adam(there, lr=1.0, eps=0.0, clip_norm=10.0)
    opt.step([cuda.array(a) for a in w])
    assert cuda.host(there[0]).tolist() == [0.0] * 3
    alone = fastopt.SGD([cuda.array(np.ones(0, np.float32))])
    alone.step([cuda.array(np.ones(0, np.float32))])
    assert alone.step_count == 1


def test_work_runs_on_the_device_of_the_arrays(shim):
    """The arrays are on the second of two devices, and the caller's current device is restored afterwards.
    The shim rejects a launch on the wrong device."""
    device, stream = ctypes.c_int(), ctypes.c_void_p()
    shim.lib.cudaSetDevice(1)
    shim.lib.cudaStreamCreate(ctypes.byref(stream))
    w = np.arange(1.0, 4.0, dtype=np.float32)
    there, grad = shim.array(w), shim.array(w)
    shim.lib.cudaSetDevice(0)
    before, shim.stream = shim.stream, stream.value
    try:
        opt = fastopt.SGD(there, lr=0.5)
        opt.step(grad)
        F.clip_grad_value([grad], 1.5)
        assert F.global_norm([grad]) == np.sqrt(1 + 1.5**2 + 1.5**2)
    finally:
        shim.stream = before
    shim.lib.cudaGetDevice(ctypes.byref(device))
    assert device.value == 0
    assert bits(shim.host(there)) == bits(w / 2)


def test_step_waits_for_the_stream_that_an_array_names(shim):
    """A stream that waits for a stream under capture joins its capture, which shows that the step waits."""
    w, grad, other = shim.array(np.ones(3)), shim.array(np.ones(3)), ctypes.c_void_p()
    shim.lib.cudaStreamCreateWithFlags(ctypes.byref(other), 1)
    F.sgd_step(w, with_interface(grad, stream=other.value), lr=0.5)
    assert shim.host(w).tolist() == [0.5] * 3
    shim.lib.cudaStreamBeginCapture(other, 2)
    with shim.new_stream():
        F.sgd_step(w, with_interface(grad, stream=other.value), lr=0.5)
    # The capture could not end if that stream did not wait for the step in turn.
    assert shim.lib.cudaStreamEndCapture(other, ctypes.byref(ctypes.c_void_p())) == 0
    assert shim.host(w).tolist() == [0.5] * 3


CALLS = {
    "dropout": lambda x, a, out: F.dropout_forward(x, 0.5, seed=1, offset=0, residual=a, out=out),
    "clip": lambda x, a, out: F.clip_grad_value([out, a], 0.25),
    "batch_norm": lambda x, a, out: F.batch_norm_forward(x, residual=a, out=out, gamma=None, beta=None),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_waits_for_the_stream_that_an_array_names(shim, call):
    """As above, for an array that is not the first argument."""
    x, y = (shim.array(np.arange(8.0).reshape(4, 2)) for _ in range(2))
    out, other = shim.array(np.full((4, 2), 7.0)), ctypes.c_void_p()
    shim.lib.cudaStreamCreateWithFlags(ctypes.byref(other), 1)
    shim.lib.cudaStreamBeginCapture(other, 2)
    before = [bits(shim.host(a)) for a in (x, out)]
    with shim.new_stream():
        CALLS[call](y, with_interface(x, stream=other.value), out)
    assert shim.lib.cudaStreamEndCapture(other, ctypes.byref(ctypes.c_void_p())) == 0
    assert [bits(shim.host(a)) for a in (x, out)] == before


def test_known_arrays_are_not_described_again(shim, monkeypatch):
    """The location of a CuPy array is read when the array is new and, for a gradient, once more when it is
    passed for the second time."""
    cupys = Cupys(shim, monkeypatch)
    make = lambda value: cupys(np.full(3, value, np.float32))  # noqa: E731
    params, grads = [make(1.0) for _ in range(9)], [make(0.5) for _ in range(9)]
    opt = fastopt.SGD(params, lr=1.0)
    for _ in range(2):
        opt.step(grads)
    cupys.asked.clear()
    opt.step(grads)
    assert cupys.asked == []
    new = make(0.25)
    opt.step([*grads[:8], new])
    assert cupys.asked == [id(new)]
    cupys.asked.clear()
    alive = [weakref.ref(g) for g in grads]
    del grads  # the optimizer keeps none of them alive
    gc.collect()
    assert [ref() for ref in alive] == [None] * 9
    assert [shim.host(p).tolist() for p in params] == [[-1.0] * 3] * 8 + [[-0.75] * 3]


def test_known_gradient_in_another_order_causes_no_copy(shim, monkeypatch):
    cupys = Cupys(shim, monkeypatch)
    w, g = (np.arange(12, dtype=np.float32).reshape(3, 4) for _ in range(2))
    there, grad = cupys(w), cupys(np.asfortranarray(g))
    opt = fastopt.SGD([there], lr=0.25)
    for _ in range(2):
        opt.step([grad])
    shim.counts()
    opt.step([grad])
    assert shim.counts()["copies"] == 0
    assert bits(shim.host(there)) == bits(w - np.float32(0.75) * g)


def test_gradient_of_a_rejected_step_is_described_in_the_next(shim, monkeypatch):
    """By then the list holds the same objects, but the new one was never described."""
    cupys = Cupys(shim, monkeypatch)
    make = lambda value: cupys(np.full(3, value, np.float32))  # noqa: E731
    params, grads, other = [make(1.0) for _ in range(2)], [make(0.5) for _ in range(2)], make(0.25)
    opt = fastopt.SGD(params, lr=1.0)
    for _ in range(3):
        opt.step(grads)
    with pytest.raises(ValueError, match=re.escape("grads[1] has shape (1,)")):
        opt.step([other, cupys(np.ones(1, np.float32))])
    cupys.asked.clear()
    opt.step([other, grads[1]])
    assert id(other) in cupys.asked
    assert [shim.host(p).tolist() for p in params] == [[-0.75] * 3, [-1.0] * 3]


def test_gradient_of_a_rejected_step_is_not_mistaken_for_an_earlier_one(shim, monkeypatch):
    cupys = Cupys(shim, monkeypatch)
    make = lambda value, n=3: cupys(np.full(n, value, np.float32))  # noqa: E731
    params, (first, second, last) = [make(0.0), make(0.0)], [make(v) for v in (1.0, 10.0, 0.0)]
    opt = fastopt.SGD(params, lr=1.0)
    opt.step([first, last])
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape("grads[1] has shape (4,)")):
            opt.step([second, make(1.0, 4)])
    for grad in (second, first):
        opt.step([grad, last])
    assert shim.host(params[0]).tolist() == [-12.0] * 3


def test_new_object_at_the_address_of_a_known_gradient_is_read(shim, monkeypatch):
    cupys = Cupys(shim, monkeypatch)
    make = lambda value: cupys(np.full(3, value, np.float32))  # noqa: E731
    w, other = make(1.0), make(0.25)
    opt = fastopt.SGD([w], lr=1.0)
    full = [
        object.__new__(cupys.type) for _ in range(1000)
    ]  # so that the next objects get memory of their own
    grads = [make(0.5)]
    for _ in range(3):
        opt.step(grads)
    address = id(grads.pop())
    new = object.__new__(cupys.type)
    new.__dict__.update(other.__dict__)
    if id(new) != address:
        pytest.skip("this Python does not reuse the gradient's address")
    del full
    for _ in range(2):
        opt.step([new])
    assert shim.host(w).tolist() == [-1.0] * 3


def test_gradients_of_a_failed_step_are_sent_to_the_device_again(shim, monkeypatch):
    """The step that introduced them failed after it had read them."""
    cupys = Cupys(shim, monkeypatch)
    make = lambda value: cupys(np.full(3, value, np.float32))  # noqa: E731
    w, first, second = make(1.0), make(0.5), make(0.25)
    opt = fastopt.SGD([w], lr=1.0, on_nonfinite="raise")
    opt.step([first])
    stream = Stream(cupys)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="waits for the device"):
            shim.capture(lambda: opt.step([second]))
    stream.leave()
    for _ in range(2):
        opt.step([second])
    assert shim.host(w).tolist() == [0.0] * 3


# ---- rejected arrays ----

BAD_GRADS = {
    "host memory": (
        lambda shim, g: shim.host(g),
        ValueError,
        "grads[1] is in host memory, but params[0] is on CUDA device 0",
    ),
    "dtype": (
        lambda shim, g: shim.array(g.view.astype(np.float64)),
        TypeError,
        "grads[1] has dtype float64, but params[1] has float32",
    ),
    "integers": (
        lambda shim, g: shim.array(g.view.astype(np.int32)),
        TypeError,
        "grads[1] has dtype int32, expected float16, bfloat16, float32 or float64",
    ),
    "shape": (
        lambda shim, g: shim.array(g.view[:-1]),
        ValueError,
        "grads[1] has shape (2,), but params[1] has (3,)",
    ),
    "mask": (
        lambda shim, g: with_interface(g, mask="any"),
        TypeError,
        "grads[1] has a mask, expected a plain array",
    ),
    "unaligned": (
        lambda shim, g: with_interface(g, data=(g.view.ctypes.data + 2, False)),
        ValueError,
        "grads[1] is not aligned to its elements of 4 bytes",
    ),
    "unaligned by DLPack": (
        lambda shim, g: OnlyDLPack(g, offset=2),
        ValueError,
        "grads[1] is not aligned to its elements of 4 bytes",
    ),
}


@pytest.mark.parametrize("case", BAD_GRADS)
def test_invalid_gradients_are_rejected_before_anything_is_written(shim, case):
    make, error, message = BAD_GRADS[case]
    params = [shim.array(np.ones(3, np.float32)) for _ in range(2)]
    grads = [shim.array(np.ones(3, np.float32)) for _ in range(2)]
    opt = fastopt.Momentum(params)
    opt.step(grads)
    before = [bits(shim.host(a)) for a in (*params, *opt.velocity)]
    with pytest.raises(error, match=re.escape(message)):
        opt.step([grads[0], make(shim, grads[1])])
    assert [bits(shim.host(a)) for a in (*params, *opt.velocity)] == before
    assert opt.step_count == 1


def test_invalid_parameters_are_rejected(shim):
    w = shim.array(np.ones(4, np.float32))
    frozen = with_interface(w, data=(w.view.ctypes.data, True))
    with pytest.raises(ValueError, match="param is read-only"):
        fastopt.SGD(frozen)
    with pytest.raises(ValueError, match="expected a dense array"):
        fastopt.SGD(with_interface(w, strides=(8,), shape=(2,)))
    with pytest.raises(ValueError, match="overlap in memory"):
        fastopt.SGD([w, w])
    with pytest.raises(
        ValueError, match=re.escape("params[1] is in host memory, but params[0] is on CUDA")
    ):
        fastopt.SGD([w, np.ones(3, np.float32)])


def test_arrays_on_two_devices_are_rejected(shim):
    w = shim.array(np.ones(3))
    shim.lib.cudaSetDevice(1)
    other = shim.array(np.ones(3))
    shim.lib.cudaSetDevice(0)
    with pytest.raises(
        ValueError, match=re.escape("grad is on CUDA device 1, but param is on CUDA device 0")
    ):
        F.sgd_step(w, other, lr=0.1)
    assert shim.host(w).tolist() == [1.0] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_on_nonfinite_policies(cuda, bad, clip):
    good, wrong = (cuda.array(np.array([1.0, x, 2.0])) for x in (0.5, bad))
    there = [cuda.array(np.ones(3)) for _ in range(2)]
    opt = fastopt.Adam(there, on_nonfinite="raise", clip_norm=clip)
    opt.step([good, good])
    before = [bits(cuda.host(a)) for a in (*there, *opt.m, *opt.v)]
    with pytest.raises(FloatingPointError, match=re.escape("grads[1] has a NaN or an infinity")):
        opt.step([good, wrong])
    opt.on_nonfinite = "skip"
    opt.step([wrong, good])
    assert [bits(cuda.host(a)) for a in (*there, *opt.m, *opt.v)] == before
    assert (opt.step_count, opt.skipped_steps) == (1, 2)
    opt.on_nonfinite = "propagate"
    opt.step([good, good])
    assert (opt.step_count, opt.skipped_steps) == (2, 2)
    opt.step([wrong, good])
    assert np.isnan(cuda.host(there[0])).any()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_infinity_is_detected_although_clip_value_removes_it(cuda, clip):
    p = cuda.array(np.array([1.0, 2.0]))
    opt = fastopt.SGD([p], lr=1.0, clip_value=1.0, clip_norm=clip, on_nonfinite="skip")
    opt.step([cuda.array(np.array([np.inf, 1.0]))])
    assert opt.skipped_steps == 1
    assert cuda.host(p).tolist() == [1.0, 2.0]


def test_overflow_by_grad_scale_is_detected(cuda):
    p = cuda.array(np.array([1.0, 2.0], np.float32))
    opt = fastopt.SGD([p], lr=1.0, grad_scale=1e-30, on_nonfinite="skip")
    opt.step([cuda.array(np.array([1e30, 1.0], np.float32))])
    assert opt.skipped_steps == 1
    assert cuda.host(p).tolist() == [1.0, 2.0]


def test_first_of_several_nonfinite_gradients_is_named(cuda):
    params = [cuda.array(np.ones(2)) for _ in range(4)]
    grads = [cuda.array(np.array([x, 1.0])) for x in (1.0, np.nan, 1.0, np.inf)]
    with pytest.raises(FloatingPointError, match=re.escape("grads[1] has")):
        fastopt.SGD(params, lr=1.0, on_nonfinite="raise").step(grads)


def test_out_of_memory_raises_and_changes_nothing(shim):
    w, g = shim.array(np.ones(3)), shim.array(np.ones(3))
    shim.lib.shim_fail_allocation(ctypes.c_int64(0))
    try:
        with pytest.raises(RuntimeError, match="CUDA: no memory left"):
            F.sgd_step(w, g, lr=0.1)
    finally:
        shim.lib.shim_fail_allocation(ctypes.c_int64(-1))
    assert shim.host(w).tolist() == [1.0] * 3


# ---- without CUDA ----


def test_first_cuda_array_without_cuda_raises_with_the_reason():
    about = {"shape": (1,), "typestr": "<f4", "data": (64, False), "version": 3}
    array = type("Cuda", (), {"__cuda_array_interface__": about})()
    _core.use_cuda(None)
    trouble = _core.cuda_trouble()
    if not trouble:
        pytest.skip("there is a CUDA device here")
    with pytest.raises(TypeError, match=re.escape(f"param is a CUDA array (Cuda), but {trouble}")):
        fastopt.SGD(array)
    assert trouble.startswith(
        ("this build of fastopt has no CUDA part", "fastopt cannot use CUDA here: there is no ")
    )


@pytest.mark.parametrize(
    ("devices", "trouble"),
    [(0, "there is no CUDA device"), (-1, "there is no NVIDIA driver, or one too old for CUDA 13.0")],
)
def test_missing_device_and_missing_driver_have_different_messages(shim, devices, trouble):
    """In a separate process, since the shim's devices cannot be restored."""
    code = f"""
import ctypes
import gc
lib = ctypes.CDLL({shim.lib._name!r})
lib.shim_set_devices({devices})
lib.fastopt_cuda_trouble.restype = ctypes.c_char_p
print(lib.fastopt_cuda_trouble().decode())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == trouble
