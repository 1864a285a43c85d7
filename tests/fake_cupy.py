"""Shim arrays that fastopt treats as CuPy arrays because of their type's name. They have the attributes that it
reads, and a current stream that is destroyed with its object."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from devices import Array, Shim


class Attributes(Array):
    """The attributes of a CuPy array that fastopt reads."""

    strides = property(lambda self: self.view.strides)
    data = property(lambda self: SimpleNamespace(ptr=self.view.ctypes.data, device_id=self.device_id))


class Cupys:
    """Creates such arrays, and records the id of each array whose ``data`` attribute is read."""

    def __init__(self, shim: Shim, monkeypatch: Any) -> None:
        self.shim = shim
        self.asked: list[int] = []
        self.leave()
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=self))

        def data(array: Attributes) -> SimpleNamespace:
            self.asked.append(id(array))
            return Attributes.data.fget(array)

        names = {"__module__": "cupy", "data": property(data)}
        self.type = type("ndarray", (Attributes,), names)  # a new type, whose library is not cached

    def __call__(self, host: np.ndarray) -> Array:
        array, device = self.shim.array(host), ctypes.c_int()
        array.__class__ = self.type
        self.shim.lib.cudaGetDevice(ctypes.byref(device))
        array.device_id = device.value
        return array

    def leave(self) -> None:
        """Make the default stream current again."""
        self.shim.stream = 1
        default = SimpleNamespace(ptr=0)
        self.get_current_stream = lambda device: default


class Stream:
    """A minimal CuPy stream: current until ``leave`` is called, and destroyed with its last reference."""

    def __init__(self, cupys: Cupys) -> None:
        self.lib, number = cupys.shim.lib, ctypes.c_void_p()
        assert self.lib.cudaStreamCreateWithFlags(ctypes.byref(number), 1) == 0
        self.ptr = cupys.shim.stream = number.value
        cupys.get_current_stream = lambda device: self
        self.leave = cupys.leave

    def __del__(self) -> None:
        self.lib.cudaStreamDestroy(ctypes.c_void_p(self.ptr))
