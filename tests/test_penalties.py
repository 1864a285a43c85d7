"""Values of the penalties, compared with sums in plain Python and with steps, which follow their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastopt
from fastopt import penalties

RNG = np.random.default_rng(2)
A, B = RNG.normal(size=(5, 4)), RNG.normal(size=7)
FORMS = {
    "array": lambda a, b: np.concatenate([a.ravel(), b]),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"a": a, "b": b},
    "groups": lambda a, b: [{"params": a}, {"params": [b], "lr": 1.0}],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_penalties_match_plain_python_sums(form, dtype):
    params = FORMS[form](A.astype(dtype), B.astype(dtype))
    flat = [float(x) for array in (A, B) for x in array.astype(dtype).ravel()]
    assert penalties.l1(params, 0.3) == pytest.approx(0.3 * math.fsum(map(abs, flat)), rel=1e-14)
    assert penalties.l2(params, 0.3) == pytest.approx(0.15 * math.fsum(x * x for x in flat), rel=1e-14)
    assert penalties.l2(params, 0.3, halved=False) == 2 * penalties.l2(params, 0.3)


@pytest.mark.parametrize("options", [{"l1": 0.3}, {"l2": 0.4}, {"l1": 0.3, "l2": 0.4}])
def test_step_follows_the_negative_gradient_of_the_penalties(options):
    """With a gradient of 0, a step subtracts the gradient of ``penalties.of``, here by central differences."""
    w = A.copy()
    opt = fastopt.SGD(w, lr=1.0, **options)
    opt.step(np.zeros_like(w))
    slope, h = np.empty_like(w), 1e-4
    for at in np.ndindex(w.shape):
        values = []
        for sign in (1, -1):
            moved = A.copy()
            moved[at] += sign * h
            values.append(penalties.of(fastopt.SGD(moved, **options)))
        slope[at] = (values[0] - values[1]) / (2 * h)
    np.testing.assert_allclose(A - w, slope, rtol=1e-8)


def test_groups_override_penalty_strengths():
    opt = fastopt.SGD([{"params": A, "l1": 0.5}, {"params": {"b": B}, "l2": 2.0}], l2=0.1)
    expected = penalties.l1(A, 0.5) + penalties.l2(A, 0.1) + penalties.l2(B, 2.0)
    assert penalties.of(opt) == pytest.approx(expected, rel=1e-15)


def test_torch_parameters_give_the_same_penalties_as_arrays(torch):
    params = {"a": torch.nn.Parameter(torch.tensor(A)), "b": torch.tensor(B)}
    plain = {"a": A, "b": B}
    assert penalties.l1(params, 0.3) == penalties.l1(plain, 0.3)
    assert penalties.l2(params, 0.3) == penalties.l2(plain, 0.3)
    options = {"l1": 0.3, "l2": 0.4}
    assert penalties.of(fastopt.SGD(params, **options)) == penalties.of(fastopt.SGD(plain, **options))
    assert params["a"].requires_grad


def test_penalty_without_params_or_strength_is_zero():
    assert penalties.l1([], 1.0) == penalties.l2([], 1.0) == penalties.of(fastopt.SGD(A)) == 0.0


@pytest.mark.parametrize("penalty", [penalties.l1, penalties.l2])
@pytest.mark.parametrize(
    ("strength", "kind", "message"),
    [
        (-1.0, ValueError, r"strength must lie in \[0, inf\), got -1.0"),
        ("1", TypeError, "strength must be a number, got '1'"),
    ],
)
def test_invalid_strength_raises(penalty, strength, kind, message):
    with pytest.raises(kind, match="^" + message):
        penalty(A, strength)


def test_proximal_l1_sets_weights_at_the_threshold_to_positive_zero():
    p = np.array([0.25, -0.25, 0.125, -0.125])
    fastopt.SGD([p], lr=0.5, l1=0.5, l1_mode="proximal").step([np.zeros(4)])
    assert p.tobytes() == np.zeros(4).tobytes()


def test_disabled_penalties_do_not_turn_infinity_into_nan():
    p = np.array([np.inf, 1.0], np.float32)
    fastopt.SGD([p], lr=0.1, l1=0.1).step([np.ones(2, np.float32)])
    assert p[0] == np.inf
