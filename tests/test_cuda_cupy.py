"""CuPy's own arrays, read through their attributes: every new object is read, whatever its dtype and layout.
Runs on the shim's memory or, with FASTOPT_TEST_DEVICE=cupy, on a real device."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from layouts import GRADS, SHAPE, TARGETS
from optimizers_table import DTYPES, bits


@pytest.fixture
def device(cuda):
    if not cuda.name.startswith("cupy"):
        pytest.skip("needs CuPy arrays: FASTOPT_TEST_DEVICE=cupy-shim or cupy")
    return cuda


@pytest.fixture
def cupy(device):
    return pytest.importorskip("cupy")


def to_cupy(device, cupy, host):
    """Return a CuPy array with these values, also of bfloat16."""
    array = device.array(host)
    if host.dtype.name != "bfloat16":
        return array
    if int(cupy.__version__.split(".")[0]) < 14:
        pytest.skip("CuPy has bfloat16 from version 14 on")
    return cupy.ndarray(host.shape, host.dtype, array.raw.data, array.raw.strides)


def values(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_parameter_may_be_reshaped_in_place(device, cupy):
    """CuPy allows this, for the state as well. The shape of a known array is not read again."""
    w, grads = values((6, 1), np.float32), [values((6, 1), np.float32, seed) for seed in (1, 2)]
    there, known = (to_cupy(device, cupy, a) for a in (w, grads[0]))
    host, here = fastopt.Momentum([w]), fastopt.Momentum([there])
    for _ in range(3):
        host.step([grads[0]])
        here.step([known])
    there.shape = (2, 3)
    here.velocity[0].shape = (2, 3)
    for g in grads:
        host.step([g])
        here.step([to_cupy(device, cupy, g.reshape(2, 3))])
    assert device.host(there).tobytes() == w.tobytes()
    with pytest.raises(
        ValueError, match=re.escape("grads[0] has shape (3, 2), but params[0] has (2, 3)")
    ):
        here.step([to_cupy(device, cupy, grads[0].reshape(3, 2))])


UNALIGNED = {"1 byte off", "3 bytes off", "field of packed structures"}  # a device has no such arrays


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", sorted(GRADS.keys() - UNALIGNED))
def test_every_dtype_and_layout(device, cupy, layout, dtype):
    """The gradients are new, then the same again, then one of another layout at the same position in the
    list."""
    w = TARGETS.get(layout, TARGETS["C order"])(values(SHAPE, DTYPES[dtype]))
    grads = [GRADS[layout](values(SHAPE, DTYPES[dtype], seed)) for seed in (1, 2)]
    there = to_cupy(device, cupy, w)
    host, here = fastopt.Momentum(w), fastopt.Momentum(there)
    for g in (*grads, np.ascontiguousarray(grads[0])):
        new = to_cupy(device, cupy, g)
        for _ in range(2):
            host.step(g)
            here.step(new)
    assert bits(device.host(there)) == bits(w)


def test_new_values_of_a_known_gradient_are_used(device):
    w, g = device.array(np.ones(3, np.float32)), device.array(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(g)
    g[...] = device.array(np.full(3, 0.25, np.float32))
    opt.step(g)
    assert device.host(w).tolist() == [0.25] * 3


def test_new_gradient_at_the_address_of_an_old_one_is_read(device):
    """Python may create an object at the address of a deleted one."""
    w = device.array(np.ones(3, np.float32))
    opt = fastopt.SGD(w, lr=1.0)
    for value in (0.5, 0.25, 0.125):
        opt.step(device.array(np.full(3, value, np.float32)))
    assert device.host(w).tolist() == [0.125] * 3


def test_empty_arrays_and_views(device):
    """Views that do not begin where their memory begins, one of them without elements."""
    memory = device.array(np.arange(12, dtype=np.float32))
    w = device.array(np.zeros((2, 3), np.float32))
    none = device.array(np.zeros((2, 0), np.float32))
    opt = fastopt.SGD([w, none], lr=1.0)
    for start in (0, 5):
        opt.step([memory[start : start + 6].reshape(2, 3), memory[12:].reshape(2, 0)])
    assert device.host(w).tolist() == [[-5.0, -7.0, -9.0], [-11.0, -13.0, -15.0]]


def on_device_1(g, cupy):
    """Make CuPy report device 1, whatever the pointer is."""
    memory = cupy.cuda.UnownedMemory(g.data.ptr, g.nbytes, g, 1)
    return cupy.ndarray(g.shape, g.dtype, cupy.cuda.MemoryPointer(memory, 0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g, cupy: cupy.ndarray(3, g.dtype, g.data + 2), ValueError, "is not aligned to its"),
        (lambda g, cupy: cupy.ndarray(3, g.dtype, g.data, (6,)), ValueError, "is not aligned to its"),
        (
            lambda g, cupy: g.view(np.int32),
            TypeError,
            "has dtype int32, expected float16, bfloat16, fl",
        ),
        (lambda g, cupy: g.view(">f4"), TypeError, "has dtype >f4, expected float16, bfloat16, fl"),
        (lambda g, cupy: g.view(np.float16), ValueError, "has shape (6,), but params[1] has (3,)"),
        (lambda g, cupy: g[:2], ValueError, "has shape (2,), but params[1] has (3,)"),
        (on_device_1, ValueError, "is on CUDA device 1, but params[0] is on CUDA device 0"),
    ],
)
def test_invalid_arrays_are_rejected(device, cupy, change, error, message):
    params, grads = ([device.array(np.ones(3, np.float32)) for _ in range(2)] for _ in range(2))
    opt = fastopt.SGD(params)
    opt.step(grads)
    before = [bits(device.host(p)) for p in params]
    with pytest.raises(error, match=re.escape(f"grads[1] {message}")):
        opt.step([grads[0], change(grads[1], cupy)])
    assert [bits(device.host(p)) for p in params] == before
    opt.step(grads)
    assert opt.step_count == 2


def test_interface_of_a_subclass_is_used(device, cupy):
    """A subclass may override what CuPy reports."""
    w, g = device.array(np.ones(3, np.float32)), device.array(np.full(3, 0.5, np.float32))

    class Elsewhere(cupy.ndarray):
        __cuda_array_interface__ = g.__cuda_array_interface__

    F.sgd_step(w, device.array(np.ones(3, np.float32)).view(Elsewhere), lr=1.0)
    assert device.host(w).tolist() == [0.5] * 3


def test_work_follows_the_current_stream(device):
    """With known and with new arrays: captured work runs when it is replayed, and not before."""
    w, g = device.array(np.ones(3, np.float32)), device.array(np.full(3, 0.5, np.float32))
    opt = fastopt.SGD(w, lr=1.0)
    opt.step(g)
    for grad in (g, device.array(np.full(3, 0.25, np.float32))):
        before = device.host(w)
        with device.new_stream():
            replay = device.capture(lambda grad=grad: opt.step(grad))
            assert bits(device.host(w)) == bits(before)
            replay()
        assert bits(device.host(w)) == bits(before - device.host(grad))
    opt.step(g)
    assert device.host(w).tolist() == [-0.75] * 3


@pytest.mark.parametrize("layout", ["C order", "Fortran order", "permuted axes"])
def test_results_have_the_memory_order_of_their_input(device, layout):
    x = TARGETS[layout](values((6, 4, 3, 2), np.float32))
    y, _ = F.dropout_forward(device.array(x), 0.5, seed=1)
    assert type(y) is type(device.array(x))
    assert y.strides == np.empty_like(x).strides
    assert bits(device.host(y)) == bits(F.dropout_forward(x, 0.5, seed=1)[0])


def test_results_are_allocated_on_the_device_of_their_input(device, cupy, monkeypatch):
    """That device is made current if it is not."""
    x, y = (device.array(np.ones((4, 3), np.float32)) for _ in range(2))
    happened = []

    class Device:
        def __enter__(self):
            happened.append("enter")

        def __exit__(self, *error):
            happened.append("leave")

    monkeypatch.setattr(cupy.ndarray, "device", Device())
    monkeypatch.setattr(cupy, "empty_like", lambda *_, **options: happened.append("make") or y)
    assert F.dropout_forward(x, 0.5, seed=1)[0] is not y
    assert happened == []
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 1)
    assert F.dropout_forward(x, 0.5, seed=1)[0] is y
    assert happened == ["enter", "make", "leave"]
