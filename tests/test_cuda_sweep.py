"""CPU and CUDA give the same bits over random sizes, conventions, dtypes and layouts, with infinities, NaNs
and denormals among the values. Only the payload of a NaN may differ: IEEE 754 does not specify which one
results."""

from __future__ import annotations

import numpy as np
import pytest

from fastopt import functional as F
from optimizers_table import DTYPES, bits
from step_cases import CASES, RULES, STORAGES

SEEDS = range(12)
ODD = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -6e-8)


def bits_with_one_nan(a):
    """Return an array's bits, with one bit pattern for all NaNs."""
    a = np.array(a)
    a[np.isnan(a)] = np.nan
    return bits(a)


def drawn(rng, shape, dtype, odd=True):
    a = rng.normal(size=shape)
    if odd and a.size:
        places = rng.integers(0, a.size, rng.integers(0, 4))
        a.reshape(-1)[places] = rng.choice(ODD, len(places))
    with np.errstate(over="ignore"):
        return a.astype(dtype)


def length(cuda, rng):
    """Return a length that is as often small as large."""
    return int(np.exp(rng.uniform(0, np.log(2e6 if cuda.name == "cupy" else 2e4))))


def any_dtype(rng):
    return list(DTYPES.values())[rng.integers(len(DTYPES))]


def assert_alike(cuda, there, host):
    for got, want in zip(there, host, strict=True):
        assert bits_with_one_nan(cuda.host(got)) == bits_with_one_nan(want)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_steps(cuda, seed):
    rng = np.random.default_rng(seed)
    case = CASES[rng.integers(len(CASES))]
    dtype, wide = list(STORAGES.values())[rng.integers(len(STORAGES))]
    wide = wide if RULES[case.rule] else None
    params = [drawn(rng, length(cuda, rng), dtype, odd=False) for _ in range(rng.integers(1, 6))]
    there = [cuda.array(p) for p in params]
    host, device = case.make(params, wide), case.make(there, wide)
    for t in range(3):
        grads = [drawn(rng, p.size, dtype, odd=t == 2) for p in params]
        host.step(grads)
        device.step([cuda.array(g) for g in grads])
    assert_alike(cuda, there, params)
    for name, arrays in case.states(device).items():
        assert_alike(cuda, arrays, case.states(host)[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_norms_and_clipping(cuda, seed):
    rng = np.random.default_rng(seed)
    arrays = [drawn(rng, length(cuda, rng), any_dtype(rng), odd=seed % 2) for _ in range(5)]
    there = [cuda.array(a) for a in arrays]
    kind = (2, 1, "max")[seed % 3]
    np.testing.assert_equal(
        F.clip_grad_norm(there, 1.5, norm_type=kind), F.clip_grad_norm(arrays, 1.5, norm_type=kind)
    )
    assert_alike(cuda, there, arrays)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("axis", [1, 3])
def test_batch_norm(cuda, axis, seed):
    rng = np.random.default_rng(seed)
    dtype, channels = any_dtype(rng), int(rng.integers(1, 70))
    n, h, w = (int(k) for k in rng.integers(1, 12, 3))
    shape = (n + 1, channels, h, w) if axis == 1 else (n + 1, h, w, channels)
    own = np.float64 if dtype == np.float64 else np.float32
    x, dy, residual = (drawn(rng, shape, dtype, odd=False) for _ in range(3))
    per_channel = [drawn(rng, channels, own, odd=False) for _ in range(3)] + [np.ones(channels, own)]
    around = {"residual": residual, "activation": "relu"} if seed % 2 else {}
    found = []
    for make in (lambda a: a.copy(), cuda.array):
        mine = {name: make(a) if name == "residual" else a for name, a in around.items()}
        numbers = [make(a) for a in per_channel]
        y, saved = F.batch_norm_forward(make(x), *numbers, axis=axis, **mine)
        found.append([y, *numbers[2:], *F.batch_norm_backward(make(dy), saved)])
    assert_alike(cuda, found[1], found[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_dropout(cuda, seed):
    rng = np.random.default_rng(seed)
    dtype, shape = any_dtype(rng), (int(rng.integers(1, 8)), length(cuda, rng))
    x, dy = (drawn(rng, shape, dtype) for _ in range(2))
    options = {
        "p": float(rng.choice([0.0, 1e-9, 0.1, 0.5, 0.999, 1.0])),
        "seed": int(rng.integers(2**63)),
        "offset": int(rng.integers(2**63)),
        "start": int(rng.integers(1000)),
        "scaling": ("inverted", "test_time")[seed % 2],
        "training": bool(rng.integers(5)),
    }
    y, saved = F.dropout_forward(x, **options)
    there, saved_there = F.dropout_forward(cuda.array(x), **options)
    assert saved_there == saved
    assert_alike(
        cuda,
        [there, F.dropout_backward(cuda.array(dy), saved_there)],
        [y, F.dropout_backward(dy, saved)],
    )
