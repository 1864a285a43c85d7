"""Results have the same bits whatever floating-point mode the caller's thread is in: a library built with
-ffast-math, or torch.set_flush_denormal, may have enabled flushing of denormals to zero."""

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


def results_with_denormals(x: dict[str, np.ndarray]) -> list[str]:
    """Return results that would change if denormals were flushed to zero at any point of a call."""
    for name, lr in (("elements", 0.5), ("halves", 0.5), ("constant", 1e-40)):
        F.sgd_step(x[name], x[name].copy(), lr=lr)
    zeros = [np.zeros(3, np.float32) for _ in "mv"]
    F.adam_step(x["adam"], zeros[0].copy(), *zeros, step=1, lr=1.0, eps=1e-40)
    F.clip_grad_norm(x["scaled"], 1e-311, clip_eps=0.0)
    norms = [np.array(F.global_norm(x["normed"], norm_type=kind)) for kind in (1, 2, "max")]
    return [image([a]) for a in (*x.values(), *norms)]


def test_flush_to_zero_does_not_change_results(machine):
    torch = pytest.importorskip("torch", reason="torch is needed to enable flushing")
    _core.set_parallel_cutoff(0)
    fastopt.set_num_threads(2)
    before = results_with_denormals(denormal_inputs())
    inputs = denormal_inputs()
    half = np.array([np.finfo(np.float32).tiny, 0.5], np.float32)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        fastopt.set_num_threads(3)  # a thread inherits the mode of the one that starts it
        during = results_with_denormals(inputs)
        left_on = float(half[0] * half[1]) == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert during == before
    assert left_on  # the caller's mode is restored


def joined_and_averaged(x: np.ndarray) -> list[str]:
    """Return what is computed on the host outside an engine: joined statistics, and the weights of an
    average."""
    whole = F.batch_norm_join([F.batch_norm_moments(part) for part in np.split(x, [20, 37])])
    mean, var = np.zeros(64), np.ones(64)
    F.batch_norm_forward(x, None, None, mean, var, momentum=None, batch=3)
    return [image([a]) for a in (whole.mean, whole.m2, mean, var)]


@pytest.mark.skipif(
    sys.platform != "linux", reason="the values of rounding modes depend on the platform"
)
def test_rounding_mode_does_not_change_results():
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
