"""Hyper-parameters that are out of range or of the wrong type are rejected wherever they can be passed. The
error names the hyper-parameter and the valid values, and nothing changes."""

import math
import re

import numpy as np
import pytest

from fastopt import _core
from optimizers_table import CASES, bits, values

# The range of each number. None disables those that may be infinite.
RANGES = {
    **dict.fromkeys(
        ("lr", "eps", "eps_root", "lr_decay", "l1", "l2", "weight_decay", "clip_eps"), "[0, inf)"
    ),
    **dict.fromkeys(("momentum", "dampening", "rho"), "[0, 1]"),
    **dict.fromkeys(("beta1", "beta2"), "[0, 1)"),
    **dict.fromkeys(("clip_value", "clip_norm"), "[0, inf]"),
    "grad_scale": "(0, inf)",
}
OUTSIDE = {
    "[0, inf)": (-1e-9, -math.inf, math.inf, 10**400),
    "[0, inf]": (-1e-9, -math.inf, -1),
    "(0, inf)": (0, 0.0, -1.0, math.inf),
    "[0, 1]": (-1e-9, 1.000001, math.inf),
    "[0, 1)": (-1e-9, 1.0, 2, math.inf),
}
SWITCHES = ("lr_in_velocity", "bias_correction", "nesterov", "maximize")
CHOICES = {
    "first_step": "'grad', 'zero'",
    "amsgrad_max": "'raw', 'corrected'",
    "l1_mode": "'subgradient', 'proximal'",
    "decay_order": "'before', 'after'",
    "decay_scale": "'lr', 'none'",
    "clip_scope": "'global', 'tensor'",
    "on_nonfinite": "'propagate', 'skip', 'raise'",
}


def invalid_values(rule, name):
    """Yield each invalid value of a hyper-parameter with the expected error."""
    if name in RANGES:
        must = f"{name} must lie in {RANGES[name]}, got "
        for value in (*OUTSIDE[RANGES[name]], math.nan):
            yield value, ValueError, must + repr(value)
        none = () if RANGES[name].endswith("inf]") else (None,)
        for value in ("0.1", True, 1j, [0.1], np.zeros(2), *none):
            yield value, TypeError, f"{name} must be a number, got {value!r}"
    elif name in SWITCHES:
        for value in (1, 0.0, "yes", None):
            yield value, TypeError, f"{name} must be True or False, got {value!r}"
    else:
        if name == "clip_norm_type":
            valid = "1, 2, inf or 'max'"
        elif name == "eps_mode":
            valid = "one of 'outside', " + ("'hat'" if rule.startswith("adam") else "'inside'")
        else:
            valid = f"one of {CHOICES[name]}"
        for value in ("nonsense", "", None, 3, True, math.nan):
            yield value, ValueError, f"{name} must be {valid}, got {value!r}"


def all_names(case):
    own = _core.RULES[case.rule]["hyper"]
    if "velocity" not in case.states:
        own = [name for name in own if name != "momentum"]  # has its own message
    return [*own, *_core.RUN_HYPER, *_core.LIST_HYPER]


PAIRS = [(rule, name) for rule, case in CASES.items() for name in all_names(case)]


def test_tables_cover_every_hyperparameter():
    named = {name for _, name in PAIRS}
    assert named == {*RANGES, *SWITCHES, *CHOICES, "eps_mode", "clip_norm_type"}


def as_argument(case, name, value):
    if name in ("beta1", "beta2"):
        return {"betas": (value, 0.5) if name == "beta1" else (0.5, value)}
    return {name: value}


@pytest.mark.parametrize(("rule", "name"), PAIRS)
def test_class_rejects_invalid_value_in_constructor_attribute_and_group(rule, name):
    case, w = CASES[rule], values(10)
    opt = case.make([{"params": [w]}])
    before, good = bits(w), getattr(opt, name)
    for value, kind, message in invalid_values(rule, name):
        message = re.escape(message)
        with pytest.raises(kind, match="^" + message):
            case.make(w, **as_argument(case, name, value))
        with pytest.raises(kind, match="^" + message):
            setattr(opt, name, value)
        if name in _core.LIST_HYPER:
            kind, message = (
                TypeError,
                f"{name} is set for the whole optimizer and cannot differ between groups",
            )
        with pytest.raises(kind, match="^" + message):
            setattr(opt.groups[0], name, value)
        with pytest.raises(kind, match=r"^params\[0\]: " + message):
            case.make([{"params": [w], name: value}])
        assert getattr(opt, name) is getattr(opt.groups[0], name) is good
    assert bits(w) == before


@pytest.mark.parametrize(("rule", "name"), PAIRS)
def test_function_rejects_invalid_value(rule, name):
    case = CASES[rule]
    arrays = [values(10, seed=i) for i in range(2 + len(case.states))]
    before = [bits(a) for a in arrays]
    states = dict(zip(case.states, arrays[2:], strict=True))
    for value, kind, message in invalid_values(rule, name):
        with pytest.raises(kind, match="^" + re.escape(message)):
            case.call(arrays[0], arrays[1], states, **{name: value})
    assert [bits(a) for a in arrays] == before
