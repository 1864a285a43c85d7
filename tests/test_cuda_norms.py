"""Norms and clipping on a CUDA device have the CPU's bits, whatever the split into a list."""

from __future__ import annotations

import numpy as np
import pytest

from fastopt import functional as F
from optimizers_table import DTYPES, bits, values

# Around the lanes and blocks of a norm, a group of blocks, and the groups that one thread joins.
LENGTHS = (1, 15, 17, 4095, 4097, 65536, 65537, 300_001)
KINDS = (2, 1, "max")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_norm(cuda, dtype, n, kind):
    a = values(n, dtype, seed=n)
    assert F.global_norm([cuda.array(a)], norm_type=kind) == F.global_norm([a], norm_type=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_of_all_dtypes_and_layouts(cuda, kind):
    arrays = [values((n, 7), dtype, seed=n) for n in (1, 700, 3) for dtype in DTYPES.values()]
    arrays += [values((40, 50))[::2, ::-3], values((9, 1000)).T, np.zeros((0, 3))]
    there = [cuda.array(a) for a in arrays]
    assert F.global_norm(there, norm_type=kind) == F.global_norm(arrays, norm_type=kind)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300, 0.0, np.inf, np.nan])
def test_doubles_whose_squares_leave_their_range(cuda, scale):
    arrays = [values(5000, np.float64) * scale, values(3)]
    norms = [F.global_norm(a) for a in ([cuda.array(a) for a in arrays], arrays)]
    np.testing.assert_equal(*norms)


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
