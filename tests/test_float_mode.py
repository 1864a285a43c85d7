"""The same bits whatever floating-point mode the caller's thread is in: a library built with -ffast-math, or
torch.set_flush_denormal, may have told it to flush denormals to zero."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import sys

import numpy as np
import pytest

import fastopt
from fastopt import _core
from fastopt import functional as F
from step_cases import TILE, image


def denormal_inputs() -> dict[str, np.ndarray]:
    full = np.full
    return {
        "elements": full(9 * TILE + 3, 1e-40, np.float32),
        "halves": np.arange(1, 1024, dtype=np.uint16).view(np.float16),
        "constant": full(3, -1e30, np.float32),
        "adam": full(3, -1.0, np.float32),
        "scaled": full(5, 1e-310),
        "normed": np.arange(1, 600_000) * 5e-324,
    }


def among_denormals(x: dict[str, np.ndarray]) -> list[str]:
    """Results that flushing denormals to zero would change, wherever in a call it were left on."""
    for name, lr in (("elements", 0.5), ("halves", 0.5), ("constant", 1e-40)):
        F.sgd_step(x[name], x[name].copy(), lr=lr)
    zeros = [np.zeros(3, np.float32) for _ in "mv"]
    F.adam_step(x["adam"], zeros[0].copy(), *zeros, step=1, lr=1.0, eps=1e-40)
    F.clip_grad_norm(x["scaled"], 1e-311, clip_eps=0.0)
    norms = [np.array(F.global_norm(x["normed"], norm_type=kind)) for kind in (1, 2, "max")]
    return [image([a]) for a in (*x.values(), *norms)]


def test_flush_to_zero_changes_nothing(machine):
    torch = pytest.importorskip("torch", reason="torch is what switches flushing on")
    _core.set_parallel_cutoff(0)
    fastopt.set_num_threads(2)
    before = among_denormals(denormal_inputs())
    inputs = denormal_inputs()
    half = np.array([np.finfo(np.float32).tiny, 0.5], np.float32)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        fastopt.set_num_threads(3)  # a thread takes its mode from the one that starts it
        during = among_denormals(inputs)
        left_on = float(half[0] * half[1]) == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert during == before
    assert left_on  # as the caller had it


def joined_and_averaged(x: np.ndarray) -> list[str]:
    """What is computed on the host outside an engine: joined statistics, the weights of an average."""
    whole = F.batch_norm_join([F.batch_norm_moments(part) for part in np.split(x, [20, 37])])
    mean, var = np.zeros(64), np.ones(64)
    F.batch_norm_forward(x, None, None, mean, var, momentum=None, batch=3)
    return [image([a]) for a in (whole.mean, whole.m2, mean, var)]


@pytest.mark.skipif(sys.platform != "linux", reason="the number of a rounding mode is the platform's")
def test_another_rounding_mode_changes_nothing():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    x = np.random.default_rng(0).standard_normal((57, 64))
    before = joined_and_averaged(x)
    assert libm.fesetround(upward) == 0
    try:
        during = joined_and_averaged(x)
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(0)
    assert during == before
