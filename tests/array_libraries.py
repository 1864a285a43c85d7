"""The array libraries for the tests of functions on arrays: NumPy, and torch if it is installed. torch does not
implement the array API itself."""

from __future__ import annotations

import numpy as np
import pytest


class NumPy:
    @staticmethod
    def array(values):
        return np.array(values)

    @staticmethod
    def host(array):
        assert isinstance(array, np.ndarray)
        return array


class Torch:
    @staticmethod
    def array(values):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("array_api_compat", reason="needs fastopt[arrays]")
        return torch.from_numpy(np.array(values))

    @staticmethod
    def host(array):
        assert type(array).__module__ == "torch"
        return array.numpy()


LIBRARIES = {"numpy": NumPy, "torch": Torch}
each_library = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
