"""Results have the same bits on every machine, with every compiler and in every version: fingerprints.json
holds digests of the results of rules, norms, BatchNorm and dropout, on which x86-64 and AArch64 agree. A
digest that changes is a change of results, and so requires a new major version. To rewrite the file:

    python tests/test_fingerprints.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from batch_norm_cases import BY_ID, FEW, Batch, Form, result_image
from batch_norm_cases import Case as LayerCase
from fastopt import functional as F
from step_cases import CASES, STORAGES, Case, gradients, image, parameters
from tolerance import DTYPES

FILE = Path(__file__).with_name("fingerprints.json")
LENGTHS = (3, 513, 20_011)  # the last one takes several blocks of a norm


def numbers() -> np.random.RandomState:
    """Return a generator whose numbers no later NumPy changes. Only methods that need no libm are used."""
    return np.random.RandomState(41)


def steps(case: Case, storage: str) -> str:
    dtype, state_dtype = STORAGES[storage]
    rng = numbers()
    params = parameters(rng, LENGTHS, dtype)
    opt = case.make(params, state_dtype)
    for _ in range(3):
        opt.step(gradients(rng, params, case))
    return image(params, *case.states(opt).values())


def norms(dtype: str) -> str:
    grads = gradients(numbers(), parameters(numbers(), LENGTHS, DTYPES[dtype]))
    norms = [F.global_norm(grads, norm_type=kind) for kind in (1, 2, "max")]
    F.clip_grad_norm(grads, 1.0)
    return image([np.array(norms)], grads)


def batch_norm(form: Form, case: LayerCase, dtype: str) -> str:
    rng, of = numbers(), DTYPES[dtype]
    x, residual, dy = (rng.uniform(-2, 3, form.shape).astype(of) for _ in range(3))
    gamma, beta, mean, var = (rng.uniform(0.5, 2, form.channels).astype(of) for _ in range(4))
    b = Batch(x, gamma, beta, mean, var, residual, dy, form)
    return result_image(b, *b.run(case))


def dropout(dtype: str, **options: object) -> str:
    x = numbers().uniform(-2, 3, (37, 5, 64)).astype(DTYPES[dtype])
    y, saved = F.dropout_forward(x, 0.3, seed=2**63 + 5, offset=7, **options)
    return image([y, F.dropout_backward(x, saved)])


DROPOUT = {"plain": {}, "channels": {"channel_axis": 1}, "alpha": {"alpha": True}}
PRINTS: dict[str, Callable[[], str]] = {
    **{f"{case} {storage}": partial(steps, case, storage) for case in CASES for storage in STORAGES},
    **{f"norms {dtype}": partial(norms, dtype) for dtype in DTYPES},
    **{
        f"batch norm {form} {case} {dtype}": partial(batch_norm, form, BY_ID[case], dtype)
        for form in [*FEW, Form((9, 5, 41, 41))]
        for case in ("affine", "residual-relu", "eval-relu")
        for dtype in DTYPES
    },
    **{
        f"dropout {name} {dtype}": partial(dropout, dtype, **options)
        for name, options in DROPOUT.items()
        for dtype in DTYPES
    },
}


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    return json.loads(FILE.read_text())


@pytest.mark.parametrize("name", PRINTS)
def test_bits_match_the_stored_fingerprint(kept, name):
    assert PRINTS[name]()[:16] == kept[name]


def test_every_stored_fingerprint_is_tested(kept):
    assert set(kept) == set(PRINTS)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: take()[:16] for name, take in PRINTS.items()}, indent=0) + "\n")
