"""Invalid calls, one per entry: the call, the error and the message. Nothing is written."""

import math

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from fastopt._options import DEFAULTS
from optimizers_table import bits, values

W = values(10)
V = np.zeros_like(W)
G = np.ones_like(W)  # a gradient
GROUPS = [{"params": {"a": W}}, {"params": [V, V.copy()]}]


def adam(**options):
    return fastopt.Adam(W, **options)


def named():
    return fastopt.SGD({"a": W, "b": V})


def grouped():
    return fastopt.SGD(GROUPS)


def setting(make, name, value):
    return lambda: setattr(make(), name, value)


CASES = [
    # names
    (
        lambda: adam(foo=1),
        TypeError,
        "Adam has no option 'foo'; it has lr, betas, .*, amsgrad_max, amsgrad, state_dtype, l1, l2",
    ),
    (lambda: fastopt.AdamW(W, foo=1), TypeError, "AdamW has no option 'foo'; it has lr, betas, eps, "),
    (
        lambda: fastopt.SGD(W, momentum=0.9),
        TypeError,
        f"SGD has no option 'momentum'; it has lr, {', '.join(DEFAULTS)}; use fastopt.Momentum or ",
    ),
    (
        lambda: fastopt.Nesterov(W, foo=1),
        TypeError,
        "Nesterov has no option 'foo'; it has lr, momentum, .*, form, state_dtype, l1, ",
    ),
    (
        lambda: fastopt.RMSprop(W, centered=True, momentum=0.5, beta=1),
        TypeError,
        "RMSprop has no option 'beta'; it has lr, rho, ",
    ),
    (lambda: adam(beta1=0.5), TypeError, "Adam has no option 'beta1'; it has lr, betas, "),
    (
        lambda: fastopt.Adam([{"params": W, "beta1": 0.5, "betas": (0.5, 0.5)}]),
        TypeError,
        r"params\[0\]: pass either betas or beta1 and beta2, not both",
    ),
    (
        lambda: fastopt.Adam([{"params": W, "beta2": 0.5, "betas": (0.5, 0.5)}]),
        TypeError,
        r"params\[0\]: pass either betas or beta1 and beta2, not both",
    ),
    (
        lambda: fastopt.SGD([{"params": W}, V], lr=1.0),
        TypeError,
        r"params\[0\] has type dict, expected an array",
    ),
    (lambda: fastopt.penalties.of(42), TypeError, "opt has type int, expected an optimizer$"),
    (
        lambda: fastopt.SGD(type("Net", (), {"named_parameters": dict})()),
        TypeError,
        r"params has type Net, .*; pass dict\(model\.named_parameters\(\)\)$",
    ),
    (
        lambda: fastopt.RMSprop(W, alpha=0.9),
        TypeError,
        "RMSprop has no option 'alpha'; it has lr, .*; torch's alpha is rho here$",
    ),
    (
        lambda: F.sgd_step(W, V, lr=1, momentum=0.9),
        TypeError,
        "sgd_step has no option 'momentum'; it has lr, l1, l2, ",
    ),
    (
        lambda: F.nesterov_step(W, V, V, lr=1, nesterov=True),
        TypeError,
        "nesterov_step has no option 'nesterov'; it has lr, momentum, form, .*, step, l1, l2, ",
    ),
    (
        lambda: fastopt.SGD([{"params": W, "foo": 1}]),
        TypeError,
        r"params\[0\]: a group of SGD has no option 'foo'; it has lr, l1, .*, clip_value$",
    ),
    (
        lambda: fastopt.Adam([{"params": W, "foo": 1}]),
        TypeError,
        r"params\[0\]: a group of Adam has no option 'foo'; it has lr, .*, betas, l1, ",
    ),
    *(
        (
            lambda name=name: fastopt.Adam([{"params": W, name: None}]),
            TypeError,
            rf"params\[0\]: {name} is set for the whole optimizer and cannot differ between groups",
        )
        for name in ("amsgrad", "state_dtype", "clip_norm")
    ),
    (
        lambda: fastopt.SGD([{"params": W}, {"lr": 1}]),
        ValueError,
        r"params\[1\] has no key 'params', expected a group as in \[\{'params': ",
    ),
    (lambda: fastopt.SGD([{"params": GROUPS}]), TypeError, r"params\[0\]\['params'\] holds groups"),
    (setting(adam, "foo", 1), AttributeError, "Adam has no attribute 'foo'"),
    (
        setting(lambda: grouped().groups[0], "foo", 1),
        AttributeError,
        "a group of SGD has no attribute 'foo'",
    ),
    (lambda: adam().foo, AttributeError, "Adam has no attribute 'foo'"),
    (lambda: grouped().groups[0].step, AttributeError, "a group of SGD has no attribute 'step'"),
    # fixed attributes, and counts
    (setting(adam, "amsgrad", True), AttributeError, "amsgrad is fixed when the optimizer is created"),
    (setting(adam, "state_dtype", None), AttributeError, "state_dtype is fixed when the optimizer is"),
    *(
        (
            setting(lambda: fastopt.Adam([{"params": W}]).groups[0], name, None),
            TypeError,
            f"{name} is set for the whole optimizer and cannot differ between groups",
        )
        for name in ("amsgrad", "state_dtype", "clip_norm")
    ),
    (setting(adam, "step_count", -1), ValueError, "step_count must be 0 or more, got -1"),
    (setting(adam, "step_count", 1.5), TypeError, "step_count must be an integer, got 1.5"),
    (
        setting(adam, "params", [W]),
        AttributeError,
        "params of Adam cannot be set; create another optimizer for",
    ),
    (setting(adam, "groups", []), AttributeError, "groups of Adam cannot be set; set an attribute of"),
    (setting(adam, "step", 1), AttributeError, "step of Adam cannot be set$"),
    (
        setting(lambda: grouped().groups[0], "params", [W]),
        AttributeError,
        "params of a group of SGD cannot be set; create another optimizer for",
    ),
    *(
        (
            setting(adam, "m", value),
            TypeError,
            f"m has type {type(value).__name__}, expected a list of arrays",
        )
        for value in (5, None, "x", {"w": W}, W, np.ones((1, *W.shape)))
    ),
    (setting(adam, "step_count", True), TypeError, "step_count must be an integer, got True"),
    (setting(adam, "m", []), ValueError, "m has 0 arrays, but params has 1"),
    (setting(adam, "m", ["x"]), TypeError, r"m\[0\] has type str, expected an array of"),
    (lambda: adam(amsgrad="no"), TypeError, "amsgrad must be True or False, got 'no'"),
    (lambda: fastopt.RMSprop(W, centered=2), TypeError, "centered must be True or False, got 2"),
    (
        setting(lambda: fastopt.RMSprop(W), "momentum", 0.9),
        ValueError,
        "momentum cannot be set: this RMSprop was created with momentum=0",
    ),
    (
        lambda: fastopt.Nesterov(W, form="x"),
        ValueError,
        "form must be one of 'lookahead', 'applied', got 'x'",
    ),
    (lambda: F.nesterov_step(W, V, V, lr=1, form=2), ValueError, "form must be one of .*, got 2"),
    (lambda: fastopt.Nesterov(W, form=[]), ValueError, r"form must be one of .*, got \[\]"),
    (
        lambda: fastopt.Nesterov(W, form="applied").lookahead(),
        ValueError,
        "lookahead needs form='lookahead', but this optimizer has form='applied'; compute the gradient at",
    ),
    # options of the constructors
    (lambda: adam(betas=0.9), ValueError, "betas must be a pair, got 0.9"),
    (lambda: adam(betas=(0.9,)), ValueError, r"betas must be a pair, got \(0.9,\)"),
    (
        lambda: adam(state_dtype="float16"),
        ValueError,
        "state_dtype must be None or 'float32', got 'float16'",
    ),
    (
        lambda: fastopt.AdaGrad(W, initial_accumulator=-1),
        ValueError,
        r"initial_accumulator must lie in \[0, inf",
    ),
    (
        lambda: fastopt.RMSprop(W, initial_accumulator="1"),
        TypeError,
        "initial_accumulator must be a number",
    ),
    (
        lambda: fastopt.AdaGrad(W, initial_accumulator=math.nan),
        ValueError,
        "initial_accumulator must lie",
    ),
    # gradients by name and by group
    (
        lambda: named().step({"a": G}),
        ValueError,
        r"grads has names \['a'\], but params has \['a', 'b'\]",
    ),
    (
        lambda: named().step({"a": G, "c": G}),
        ValueError,
        r"grads has names \['a', 'c'\], but params",
    ),
    (
        lambda: named().step({"a": G, "b": None}),
        TypeError,
        r"grads\['b'\] has type NoneType, expected an array of .*; leave its parameter out, or pass zeros$",
    ),
    (
        lambda: named().step({"a": G, "b": G[:3]}),
        ValueError,
        r"grads\['b'\] has shape \(3,\), but params\['b'\]",
    ),
    (lambda: adam().step({"a": G}), TypeError, "grad has type dict, expected an array"),
    (
        lambda: fastopt.SGD([W]).step({"a": G}),
        ValueError,
        r"grads has names \['a'\], but params has no names",
    ),
    (lambda: grouped().step([{"grads": {"a": G}}]), ValueError, "grads has 1 groups, but params has 2"),
    (
        lambda: grouped().step([{}, {"grads": [G, G]}]),
        ValueError,
        r"grads\[0\] has no key 'grads', expected a group as in \[\{'grads': \[\.\.\.\]\}\]$",
    ),
    (
        lambda: grouped().step([{"grads": {"b": G}}, {"grads": [G, G]}]),
        ValueError,
        r"grads\[0\]\['grads'\] has names \['b'\], but params\[0\]\['params'\] has \['a'\]",
    ),
    (
        lambda: grouped().step([{"grads": {"a": G}}, {"grads": [G]}]),
        ValueError,
        r"grads\[1\]\['grads'\] has 1 arrays, but params\[1\]\['params'\] has 2",
    ),
    (
        lambda: fastopt.SGD([{"params": {"a": W}}, {"params": {"a": G}}]).step({"a": G.copy()}),
        ValueError,
        "grads is a dict, but two groups of params have the same name",
    ),
    # functions
    (lambda: F.adam_step(W, V, V, V, step=0), ValueError, "step must be 1 or more, got 0"),
    (lambda: F.adam_step(W, V, V, V, step=2**62), ValueError, r"step must be less than 2\*\*62, got"),
    (setting(adam, "step_count", 2**80), ValueError, r"step_count must be less than 2\*\*62, got"),
    (lambda: fastopt.SGD(W, lr=np.True_), TypeError, "lr must be a number, got"),
    (lambda: F.global_norm(np.ma.masked_array(W, False)), TypeError, "arrays has a mask"),
    (
        lambda: F.batch_norm_moments(np.ones((2, 3)), axis=2**40),
        ValueError,
        r"axis must lie in \[-64, 64\)",
    ),
    (lambda: F.adam_step(W, V, V, V, step="1"), TypeError, "step must be an integer, got '1'"),
    (
        lambda: F.momentum_step(W, V, V, lr=1, dampening=0.5),
        ValueError,
        "momentum_step with dampening requires step=",
    ),
    (
        lambda: F.adagrad_step(W, V, V, lr=1, lr_decay=0.5),
        ValueError,
        "adagrad_step with lr_decay requires step=",
    ),
    (
        lambda: F.rmsprop_step(W, V, V, lr=1, momentum=0.5),
        ValueError,
        "rmsprop_step with momentum requires velocity=",
    ),
    (
        lambda: F.nesterov_lookahead(W, V, lr_in_velocity=False),
        ValueError,
        "nesterov_lookahead with lr_in_velocity=False requires lr=",
    ),
    (
        lambda: F.nesterov_lookahead([W, 1.0], [V, V]),
        TypeError,
        r"params\[1\] has type float, expected an array",
    ),
    (lambda: F.nesterov_lookahead("x", V), TypeError, "param has type str, expected an array"),
    (
        lambda: F.nesterov_lookahead([W], V),
        TypeError,
        "velocity has type ndarray, expected a list of arrays",
    ),
    (
        lambda: F.nesterov_lookahead(W, V[:3]),
        ValueError,
        r"velocity has shape \(3,\), but param has \(10,\)",
    ),
    (lambda: F.clip_grad_norm(W, -1), ValueError, r"max_norm must lie in \[0, inf\], got -1"),
    (
        lambda: F.clip_grad_norm(W, 1, norm_type=3),
        ValueError,
        "norm_type must be 1, 2, inf or 'max', got 3",
    ),
    (
        lambda: F.clip_grad_norm(W, 1, scope="x"),
        ValueError,
        "scope must be one of 'global', 'tensor', got 'x'",
    ),
    (
        lambda: F.clip_grad_norm(W, 1, clip_eps=-1),
        ValueError,
        r"clip_eps must lie in \[0, inf\), got -1",
    ),
    (lambda: F.clip_grad_value(W, math.nan), ValueError, r"value must lie in \[0, inf\], got nan"),
    (
        lambda: F.global_norm(W, norm_type="3"),
        ValueError,
        "norm_type must be 1, 2, inf or 'max', got '3'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), CASES, ids=[line[2] for line in CASES])
def test_invalid_call_raises_with_message_and_writes_nothing(call, kind, message):
    before = bits(W), bits(V)
    with pytest.raises(kind, match="^" + message) as caught:
        call()
    assert type(caught.value) is kind
    assert (bits(W), bits(V)) == before
