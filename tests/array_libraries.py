"""The libraries whose arrays the course's functions are tried on: NumPy, and torch where it is installed, which
has no array API of its own."""

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
