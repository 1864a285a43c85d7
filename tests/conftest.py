"""Fixtures for all tests. Machine settings are restored after each test that changes them."""

from __future__ import annotations

import os

import pytest

import fastopt
from fastopt import _core


@pytest.fixture
def machine():
    """Allow a test to change threads, cutoff and instruction set; restore them afterwards."""
    isa = _core.isa()
    yield
    _core.select_isa(isa)
    _core.set_parallel_cutoff(_core.PARALLEL_CUTOFF)
    _core.set_prefetch_threshold(0)
    fastopt.set_num_threads(0)


@pytest.fixture
def torch():
    """The torch module. The test is skipped without it, because torch is not a dependency of the suite."""
    return pytest.importorskip("torch", reason="torch is not installed")


# All instruction sets of this machine, or the one that the environment forces.
ISAS = [_core.isa()] if os.environ.get("FASTOPT_ISA") else _core.isas_supported()


@pytest.fixture(params=ISAS)
def isa(request, machine):
    """Force each instruction set in turn."""
    _core.select_isa(request.param)
    return request.param


@pytest.fixture
def cuda():
    """A CUDA device: the host shim or a real one (devices.py)."""
    from devices import device

    try:
        found = device()
    except FileNotFoundError as e:
        pytest.skip(f"the CUDA engine cannot be built for the host: {e}")
    found.use()
    yield found
    _core.use_cuda(None)


@pytest.fixture
def shim(cuda):
    """The host shim, for tests of what only the shim provides."""
    if cuda.name != "shim":
        pytest.skip("needs the shim: its two devices, plain arrays, counters and simulated errors")
    return cuda
