"""Every rule, with every convention and option, matches its formula: as a class and as a function, in every
dtype, at lengths around a tile and far beyond one, over several steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastopt
import reference
from fastopt import functional as F
from step_cases import CASES, PLAIN, RULES, STORAGES, TILE, gradients, image, parameters
from tolerance import DTYPES, assert_close, wide

LENGTHS = (1, 7, TILE - 1, TILE, TILE + 1, 3 * TILE + 5)
STEPS = 12
joined = np.concatenate


def test_every_rule_has_a_reference_and_a_case():
    assert set(reference.REFERENCES) == set(RULES) == set(PLAIN)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_step_matches_reference(case, storage):
    dtype, state_dtype = STORAGES[storage]
    rng = np.random.default_rng(17)
    params = parameters(rng, LENGTHS, dtype)
    opt = case.make(params, state_dtype)
    states = case.states(opt)
    twin_params, twin_states = copy.deepcopy(params), copy.deepcopy(states)
    for t in range(1, STEPS + 1):
        before, states_before = copy.deepcopy(params), copy.deepcopy(states)
        grads = gradients(rng, params, case)
        given = image(grads)
        expected, expected_states = case.reference(params, grads, states, t)

        opt.step(grads)
        case.step_function(twin_params, grads, twin_states, t)

        assert image(grads) == given
        assert image(twin_params, *twin_states.values()) == image(params, *states.values())
        assert_close(joined(params), joined(expected), joined(before), what=f"{case} step {t} param")
        for name, arrays in states.items():
            was, should = joined(states_before[name]), joined(expected_states[name])
            assert_close(joined(arrays), should, was, what=f"{case} step {t} {name}")
    assert opt.step_count == STEPS


@pytest.mark.parametrize("t", [1, 2, 999, 10**6, 2**40])
@pytest.mark.parametrize("rule", ["adam", "adam_amsgrad", "adagrad", "momentum"])
def test_large_step_counts_match_reference(rule, t):
    """The step count is used in powers and factors, which must be right for counts that no test can reach."""
    case = PLAIN[rule]
    rng = np.random.default_rng(t)
    params = parameters(rng, (9,), np.float64)
    grads = gradients(rng, params)
    states = {name: [np.full(9, 0.5)] for name in RULES[rule]}
    expected, _ = case.reference(params, grads, states, t)
    before = copy.deepcopy(params)
    case.step_function(params, grads, states, t)
    assert_close(params[0], expected[0], before[0], what=f"{rule} step {t}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lr_in_velocity", [True, False])
def test_nesterov_lookahead_matches_reference(dtype, lr_in_velocity):
    rng = np.random.default_rng(3)
    params = parameters(rng, (TILE + 3,), DTYPES[dtype])
    velocity = [p * DTYPES[dtype].type(0.125) for p in params]
    given = image(params, velocity)
    options = {"lr": 0.25, "momentum": 0.75, "lr_in_velocity": lr_in_velocity}
    points = F.nesterov_lookahead(params, velocity, **options)
    expected = reference.lookahead(wide(params[0]), wide(velocity[0]), **options)
    assert_close(points[0], expected, params[0])
    assert image(params, velocity) == given


def test_nesterov_lookahead_requires_lr_unless_it_is_in_the_velocity():
    """lr has no default here, because 0 would silently return the parameters."""
    param, velocity = np.array([1.0]), np.array([0.5])
    options = {"momentum": 0.5, "lr_in_velocity": False}
    assert F.nesterov_lookahead(param, velocity, lr=0.5, **options) == [0.875]
    assert F.nesterov_lookahead(param, velocity, lr=0.0, **options) == [1.0]
    with pytest.raises(ValueError, match=r"requires lr=$"):
        F.nesterov_lookahead(param, velocity, **options)


def test_lookahead_and_applied_forms_follow_the_same_path():
    """With a constant learning rate, the parameters of one form are the look-ahead points of the other, for any
    function (Sutskever et al. 2013, section 2)."""
    rng = np.random.default_rng(5)
    curvature, start = rng.uniform(0.5, 2.0, 40), rng.standard_normal(40)
    ahead, applied = start.copy(), start.copy()
    options = {"lr": 0.05, "momentum": 0.9}
    a = fastopt.Nesterov(ahead, form="lookahead", **options)
    b = fastopt.Nesterov(applied, form="applied", **options)
    for _ in range(30):
        a.step(curvature * np.sin(a.lookahead()))
        b.step(curvature * np.sin(applied))
    np.testing.assert_allclose(a.lookahead(), applied, rtol=0, atol=1e-14)
    assert np.abs(applied - start).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("mode", "w", "g", "expected"),
    [
        ("subgradient", [0.0, 2.0, -2.0], [0.0, 0.0, 0.0], [0.0, 1.75, -1.75]),  # sign(0) = 0
        ("proximal", [0.125, -0.25, 2.0, -2.0, 0.0], [0.0] * 5, [0.0, 0.0, 1.75, -1.75, 0.0]),
        ("proximal", [0.0, 0.0], [1.0, -1.0], [-0.25, 0.25]),
    ],
)
def test_l1_at_and_around_zero(dtype, mode, w, g, expected):
    """Proximal L1 makes exact zeros; the subgradient at zero is zero."""
    w, g = np.array(w, dtype), np.array(g, dtype)
    F.sgd_step(w, g, lr=0.5, l1=0.5, l1_mode=mode)
    assert w.tolist() == expected


def test_float32_steps_compute_in_float32():
    """A hyper-parameter is rounded once to the compute type. If it stayed a double, the GPU would compute in
    FP64, and NumPy's float32 expression would not give the same bits."""
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal(1000).astype(np.float32) for _ in "wg")
    expected = w - np.float32(0.1) * g
    F.sgd_step(w, g, lr=0.1)
    assert w.tobytes() == expected.tobytes()
