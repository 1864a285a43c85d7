"""Arrays of the shim that fastopt takes for CuPy's, by the name of their type: they have the attributes that it
reads, and a current stream that ends with its object."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from devices import Array, Shim


class Attributes(Array):
    """What an array of CuPy's says of itself."""

    strides = property(lambda self: self.view.strides)
    data = property(lambda self: SimpleNamespace(ptr=self.view.ctypes.data, device_id=self.device_id))


class Cupys:
    """Makes such arrays, and keeps the identity of each that is asked where it lies."""

    def __init__(self, shim: Shim, monkeypatch: Any) -> None:
        self.shim = shim
        self.asked: list[int] = []
        self.leave()
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=self))

        def data(array: Attributes) -> SimpleNamespace:
            self.asked.append(id(array))
            return Attributes.data.fget(array)

        names = {"__module__": "cupy", "data": property(data)}
        self.type = type("ndarray", (Attributes,), names)  # a new one each time, asked for its library

    def __call__(self, host: np.ndarray) -> Array:
        array, device = self.shim.array(host), ctypes.c_int()
        array.__class__ = self.type
        self.shim.lib.cudaGetDevice(ctypes.byref(device))
        array.device_id = device.value
        return array

    def leave(self) -> None:
        """The default stream is the current one again."""
        self.shim.stream = 1
        default = SimpleNamespace(ptr=0)
        self.get_current_stream = lambda device: default


class Stream:
    """Of CuPy's, in short: the current one until it is left, and destroyed when nobody holds it."""

    def __init__(self, cupys: Cupys) -> None:
        self.lib, number = cupys.shim.lib, ctypes.c_void_p()
        assert self.lib.cudaStreamCreateWithFlags(ctypes.byref(number), 1) == 0
        self.ptr = cupys.shim.stream = number.value
        cupys.get_current_stream = lambda device: self
        self.leave = cupys.leave

    def __del__(self) -> None:
        self.lib.cudaStreamDestroy(ctypes.c_void_p(self.ptr))
