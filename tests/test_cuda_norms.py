"""Norms and clipping give the same bits on a CUDA device as on the CPU, however the elements are split into a
list."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import DTYPES, bits, values

# Lengths around the lanes and blocks of a norm, a group of blocks, and the groups that one thread combines.
LENGTHS = (1, 15, 17, 4095, 4097, 65536, 65537, 300_001)
KINDS = (2, 1, "max")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_norm(cuda, dtype, n, kind):
    a = values(n, dtype, seed=n)
    assert F.global_norm([cuda.array(a)], norm_type=kind) == F.global_norm([a], norm_type=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_all_dtypes_and_layouts(cuda, kind):
    arrays = [values((n, 7), dtype, seed=n) for n in (1, 700, 3) for dtype in DTYPES.values()]
    arrays += [values((40, 50))[::2, ::-3], values((9, 1000)).T, np.zeros((0, 3))]
    there = [cuda.array(a) for a in arrays]
    assert F.global_norm(there, norm_type=kind) == F.global_norm(arrays, norm_type=kind)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300, 0.0, np.inf, np.nan])
def test_doubles_whose_squares_are_out_of_range(cuda, scale):
    arrays = [values(5000, np.float64) * scale, values(3)]
    norms = [F.global_norm(a) for a in ([cuda.array(a) for a in arrays], arrays)]
    np.testing.assert_equal(*norms)


@pytest.mark.parametrize("scale", [2.0**-450, 2.0**-430, 2.0**422, 2.0**480, 2.0**1000])
def test_clipping_doubles_at_any_scale_of_the_gradient(cuda, scale):
    """Next to a tensor of zeros, whose scale may overflow where the norm decides it."""
    grads, steps = (np.array([3.0, 4.0, 0.0]) * 1e-170 * scale, np.zeros(2)), []
    for array in (np.array, cuda.array):
        params = [array(np.ones(3)), array(np.ones(2))]
        groups = [
            {"params": [params[0]], "grad_scale": scale * 1.2345},
            {"params": [params[1]], "grad_scale": 2.0**-500},
        ]
        opt = fastopt.SGD(groups, lr=1e170, clip_norm=1e-170, clip_eps=0.0)
        opt.step([array(g) for g in grads])
        steps.append([bits(np.asarray(p) if array is np.array else cuda.host(p)) for p in params])
        last = params
    assert steps[0] == steps[1]
    expected = 1.0 - np.array([3.0, 4.0, 0.0]) / 5
    np.testing.assert_allclose(cuda.host(last[0]), expected, rtol=1e-13)
    assert (cuda.host(last[1]) == 1.0).all()


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("kind", KINDS)
def test_clipping_in_place(cuda, scope, kind):
    arrays = [values((n, 3), dtype, seed=n) for n in (1, 700, 3000) for dtype in DTYPES.values()]
    there = [cuda.array(a) for a in arrays]
    norms = [F.clip_grad_norm(a, 1.5, norm_type=kind, scope=scope) for a in (there, arrays)]
    assert norms[0] == norms[1]
    F.clip_grad_value(there, 0.125)
    F.clip_grad_value(arrays, 0.125)
    assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in arrays]


def test_clip_value_on_doubles_whose_squares_are_out_of_range(cuda):
    """The values are rescaled for the norm, and so is the limit."""
    limited, small = (cuda.array(np.zeros(2)) for _ in range(2))
    opt = fastopt.SGD([limited], lr=1.0, clip_value=1e170, clip_norm=1.0)
    opt.step([cuda.array(np.full(2, 5e200))])
    fastopt.SGD([small], lr=1.0, clip_norm=1.0).step([cuda.array(np.full(2, 1e170))])
    assert bits(cuda.host(limited)) == bits(cuda.host(small))
