"""Work runs on the current stream of the arrays' own library, as that library reports it. With the shim, a
step on a stream that is being captured does not run at once."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from devices import Array
from fake_cupy import Cupys
from fastopt import functional as F

CAPTURE_RELAXED = 2


@contextlib.contextmanager
def captured(shim):
    """Yield a stream that is being captured."""
    stream, graph = ctypes.c_void_p(), ctypes.c_void_p()
    assert shim.lib.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    assert shim.lib.cudaStreamBeginCapture(stream, CAPTURE_RELAXED) == 0
    yield stream.value
    assert shim.lib.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0


def test_cupy_stream_is_that_of_the_device_of_the_arrays(shim, monkeypatch):
    """Each device has a current stream of its own."""
    cupys = Cupys(shim, monkeypatch)
    shim.lib.cudaSetDevice(1)
    try:
        w, g = cupys(np.ones(3, np.float32)), cupys(np.full(3, 0.5, np.float32))
        with captured(shim) as stream:
            shim.lib.cudaSetDevice(0)
            cupys.get_current_stream = lambda device: SimpleNamespace(ptr=stream if device == 1 else 0)
            F.sgd_step(w, g, lr=1.0)
            assert w.view.tolist() == [1.0] * 3
            shim.lib.cudaSetDevice(1)
    finally:
        shim.lib.cudaSetDevice(0)


class Tensor(Array):
    """What torch's tensors reported before 2.10, and what a subclass of them still reports."""

    requires_grad = False

    def is_neg(self):
        return False

    def detach(self):
        return self

    @property
    def __cuda_array_interface__(self):
        about = {**super().__cuda_array_interface__, "version": 2}
        del about["stream"]
        return about


Tensor.__module__ = "torch"
Subclass = type("Subclass", (Tensor,), {"__module__": "__main__"})


@pytest.mark.parametrize("kind", [Tensor, Subclass])
def test_torch_stream_is_read_by_torchs_own_function(shim, monkeypatch, kind):
    def tensor(value):
        array = shim.array(np.full(3, value, np.float32))
        array.__class__ = kind
        return array

    with captured(shim) as stream:
        current_stream = lambda device: SimpleNamespace(cuda_stream=stream)  # noqa: E731
        torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=current_stream))
        monkeypatch.setitem(sys.modules, "torch", torch)
        w = tensor(1.0)
        F.sgd_step(w, tensor(0.5), lr=1.0)
        assert w.view.tolist() == [1.0] * 3


class Bare:
    """An array that has the interface, but no library to create others."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__


def test_array_without_a_library_can_be_stepped_but_not_created(shim):
    array, grad = (Bare(shim.array(np.ones((3, 2), np.float32))) for _ in range(2))
    F.sgd_step(array, grad, lr=0.5)
    assert array.array.view.tolist() == [[0.5] * 2] * 3
    for make in (
        lambda: fastopt.Adam(array),
        lambda: F.dropout_forward(array, 0.5, seed=1),
        lambda: F.batch_norm_forward(array),
    ):
        with pytest.raises(TypeError, match=r"another array of type Bare .* cupy\.asarray"):
            make()
    out = shim.array(np.ones((3, 2), np.float32))
    F.dropout_forward(array, 0.0, seed=1, out=out)
    assert out.view.tolist() == [[0.5] * 2] * 3


def test_two_threads_may_pass_the_first_cuda_array_at_once():
    """Each thread waits until the CUDA part is loaded or known to be missing."""
    code = """
import importlib.abc, sys, threading, time
import fastopt
from fastopt import functional as F

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "fastopt._cuda":
            looking.set()
            time.sleep(0.2)
            raise ModuleNotFoundError(name)

def step():
    try:
        F.sgd_step(array, array, lr=0.1)
    except TypeError as error:
        said.append(str(error))

about = {"shape": (1,), "typestr": "<f4", "data": (64, False), "version": 3}
array = type("Cuda", (), {"__cuda_array_interface__": about})()
looking, said = threading.Event(), []
sys.meta_path.insert(0, Slow())
first = threading.Thread(target=step)
first.start()
looking.wait()
step()
first.join()
assert said == ["param is a CUDA array (Cuda), but this build of fastopt has no CUDA part"] * 2, said
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.returncode
