"""An optimizer accepts parameters and gradients in any container, its hyper-parameters are attributes that
apply from the next step on, and its step count is shared by all groups and dtypes."""

import array
import re
from fractions import Fraction

import numpy as np
import pytest

import fastopt
from fastopt import _core
from optimizers_table import CASES, DTYPES, all_bits, bits, state_bits, values

SHAPES = ((5, 7), (11,), (2, 3, 4))
NAMES = ("a", "b", "c")


def arrays(seed, dtype=np.float32):
    return [values(shape, dtype, seed + i) for i, shape in enumerate(SHAPES)]


def by_name(x):
    return dict(zip(NAMES, x, strict=True))


def reverse_order(mapping):
    return dict(reversed(mapping.items()))


def grouped(key, first, second):
    return [{key: first}, {key: second}]


# Containers for three parameters, and for their gradients. With groups, the third has a group of its own.
FORMS = {
    "list": (list, (list, tuple, iter)),
    "tuple": (tuple, (list, tuple, iter)),
    "generator": (iter, (list, tuple, iter)),
    "dict": (by_name, (by_name, lambda x: reverse_order(by_name(x)), list, tuple)),
    "groups of lists": (
        lambda x: grouped("params", x[:2], x[2:]),
        (
            list,
            iter,
            lambda x: grouped("grads", x[:2], x[2:]),
            lambda x: grouped("grads", tuple(x[:2]), [x[2]]),
            lambda x: iter(grouped("grads", iter(x[:2]), x[2:])),
        ),
    ),
    "a list and an array": (
        lambda x: grouped("params", x[:2], x[2]),
        (tuple, lambda x: grouped("grads", x[:2], x[2])),
    ),
    "groups of dicts": (
        lambda x: grouped("params", {"a": x[0], "b": x[1]}, {"c": x[2]}),
        (list, by_name, lambda x: grouped("grads", {"b": x[1], "a": x[0]}, [x[2]])),
    ),
    "the same names in two groups": (
        lambda x: grouped("params", {"a": x[0], "b": x[1]}, {"a": x[2]}),
        (list, lambda x: grouped("grads", {"b": x[1], "a": x[0]}, {"a": x[2]})),
    ),
}
PAIRS = [(form, i) for form, (_, grads) in FORMS.items() for i in range(len(grads))]


@pytest.mark.parametrize(("form", "grad_form"), PAIRS)
def test_container_of_params_does_not_change_the_result(form, grad_form):
    ours, plain = arrays(0), arrays(0)
    as_params, as_grads = FORMS[form][0], FORMS[form][1][grad_form]
    opt, twin = fastopt.Adam(as_params(ours), clip_norm=1.0), fastopt.Adam(plain, clip_norm=1.0)
    for seed in (10, 20):
        opt.step(as_grads(arrays(seed)))
        twin.step(arrays(seed))
    assert all_bits(ours) == all_bits(plain)
    assert state_bits(opt) == state_bits(twin)


@pytest.mark.parametrize("form", FORMS)
def test_params_attribute_keeps_its_container_and_arrays(form):
    given = arrays(0)
    found = fastopt.SGD(FORMS[form][0](given)).params
    assert list(found) == list(NAMES) if form == "dict" else type(found) is list
    flat = found.values() if form == "dict" else found
    assert all(a is b for a, b in zip(flat, given, strict=True))


def test_single_array_is_accepted_as_params():
    ours, plain = values(9), values(9)
    opt = fastopt.SGD(ours)
    assert opt.params is ours
    opt.step(values(9, seed=1))
    opt.step([values(9, seed=2)])
    twin = fastopt.SGD([plain])
    twin.step([values(9, seed=1)])
    twin.step([values(9, seed=2)])
    assert bits(ours) == bits(plain)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lr_in_velocity", [True, False])
def test_lookahead_is_params_minus_momentum_times_velocity(form, lr_in_velocity):
    params = arrays(0, np.float64)
    options = {"lr": 0.25, "momentum": 0.5, "lr_in_velocity": lr_in_velocity}
    opt = fastopt.Nesterov(FORMS[form][0](params), **options)
    opt.step(arrays(1, np.float64))
    if opt.groups[1:]:
        opt.groups[1].momentum = 0.75
    before = all_bits(params), state_bits(opt)
    points = opt.lookahead()
    assert type(points) is type(opt.params)
    points = list(points.values()) if form == "dict" else points
    for i, (point, w, v) in enumerate(zip(points, params, opt.velocity, strict=True)):
        momentum = opt.groups[1].momentum if opt.groups[1:] and i == 2 else 0.5
        assert bits(point) == bits(w - momentum * v * (1.0 if lr_in_velocity else 0.25))
    assert (all_bits(params), state_bits(opt)) == before


def test_lookahead_of_one_array_is_an_array():
    w = values(9)
    assert bits(fastopt.Nesterov(w).lookahead()) == bits(w)


@pytest.mark.parametrize("buffer", [memoryview, lambda a: array.array("f", a)])
def test_lookahead_of_a_buffer_returns_an_array(buffer):
    w, g = values(9), values(9, seed=1)
    opt, twin = (fastopt.Nesterov(p, lr=0.25) for p in (buffer(w.copy()), w))
    for o in (opt, twin):
        o.step(g)
    before = bits(np.asarray(opt.params))
    point = opt.lookahead()
    assert isinstance(point, (np.ndarray, array.array))
    assert bits(np.asarray(point)) == bits(twin.lookahead()) != before
    assert bits(np.asarray(opt.params)) == before


def test_buffer_as_state_is_copied_by_state_dict():
    opt = fastopt.Momentum([np.zeros(3)])
    opt.velocity = [memoryview(np.ones(3))]
    saved = opt.state_dict()["state"]["velocity"][0]
    opt.step([np.ones(3)])
    assert saved.tolist() == [1.0, 1.0, 1.0]


# ---- hyper-parameters ----


@pytest.mark.parametrize("rule", CASES)
def test_hyperparameters_set_as_attributes_apply_to_the_next_step(rule):
    case = CASES[rule]
    ours, plain = values(50), values(50)
    changed = {"lr": 0.3, "l2": 0.1, "weight_decay": 0.2, "clip_value": 0.5, "clip_norm": 2.0}
    opt, twin = case.make(ours), case.make(plain, **changed)
    for name, value in changed.items():
        setattr(opt, name, value)
        assert getattr(opt, name) == getattr(opt.groups[0], name) == value
    for o in (opt, twin):
        o.step(values(50, seed=1))
    assert bits(ours) == bits(plain)
    opt.clip_norm = None
    opt.step(values(50, seed=2))
    twin.step(values(50, seed=2))
    assert bits(ours) != bits(plain)


OTHER_NUMBERS = {
    "an array": np.array,
    "float32": np.float32,
    "float64": np.float64,
    "a fraction": Fraction,
}


@pytest.mark.parametrize("number", OTHER_NUMBERS.values(), ids=OTHER_NUMBERS)
def test_hyperparameters_are_stored_as_python_floats(number, tmp_path):
    """This protects them from changes elsewhere, and a checkpoint can store them."""
    half = number(0.5)
    group = {"params": values(3), "lr": half, "betas": (half, half)}
    opt = fastopt.Adam([group], lr=half, betas=[half, half], clip_norm=half, clip_norm_type=number(2))
    opt.eps = opt.groups[0].l2 = half
    if isinstance(half, np.ndarray):
        half[...] = 0.25
    hyper, own = (opt.state_dict()[key] for key in ("hyper", "groups"))
    for name in ("lr", "beta1", "beta2", "eps", "clip_norm"):
        assert (hyper[name], type(hyper[name])) == (0.5, float)
    assert (hyper["clip_norm_type"], type(hyper["clip_norm_type"])) == (2.0, float)
    assert own == [{"lr": 0.5, "beta1": 0.5, "beta2": 0.5, "l2": 0.5}]
    assert {type(value) for value in own[0].values()} == {float}
    fastopt.checkpoint.save(tmp_path / "opt.npz", opt.state_dict())
    assert fastopt.checkpoint.load(tmp_path / "opt.npz")["hyper"] == hyper


def test_python_ints_strings_and_bools_are_stored_unchanged():
    class Name(str):
        __slots__ = ()

    opt = fastopt.SGD(values(3), lr=1, clip_norm_type="max", l1_mode=Name("proximal"), maximize=True)
    kept = opt.lr, opt.clip_norm_type, opt.l1_mode, opt.maximize, opt.clip_norm
    assert kept == (1, "max", "proximal", True, None)
    assert [type(value) for value in kept] == [int, str, str, bool, type(None)]


@pytest.mark.parametrize(("eps_mode", "differ"), [("outside", True), ("hat", False)])
def test_amsgrad_max_is_always_raw_with_eps_mode_hat(eps_mode, differ):
    ours = [values(50) for _ in range(2)]
    for w, largest in zip(ours, ("raw", "corrected"), strict=True):
        opt = fastopt.Adam(w, amsgrad=True, amsgrad_max=largest, eps_mode=eps_mode)
        for seed in (1, 2, 3):
            opt.step(values(50, seed=seed))
    assert (bits(ours[0]) != bits(ours[1])) == differ


def test_betas_and_beta1_beta2_stay_in_sync():
    opt = fastopt.Adam([{"params": values(3)}, {"params": values(3), "betas": (0.1, 0.2)}])
    opt.beta1 = 0.5
    assert (opt.betas, opt.groups[0].betas, opt.groups[1].betas) == (
        (0.5, 0.999),
        (0.5, 0.999),
        (0.1, 0.2),
    )
    opt.betas, opt.groups[1].beta2 = (0.3, 0.4), 0.9
    assert (opt.beta1, opt.beta2, opt.groups[1].betas) == (0.3, 0.4, (0.1, 0.9))
    assert not hasattr(fastopt.SGD(values(3)), "betas")


GROUP_OPTIONS = {
    "lr": 0.7,
    "l1": 0.1,
    "weight_decay": 0.3,
    "grad_scale": 4.0,
    "clip_value": 0.05,
    "maximize": True,
}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("rule", CASES)
def test_groups_override_hyperparameters(rule, later):
    case = CASES[rule]
    ours, plain = arrays(0), arrays(0)
    opt = case.make([{"params": ours[:1]}, {"params": ours[1:], **({} if later else GROUP_OPTIONS)}])
    if later:
        for name, value in GROUP_OPTIONS.items():
            setattr(opt.groups[1], name, value)
    assert [p.shape for g in opt.groups for p in g.params] == list(SHAPES)
    opt.lr = 0.2  # applies to the first group; the second overrides lr
    twins = case.make(plain[:1], lr=0.2), case.make(plain[1:], **GROUP_OPTIONS)
    for seed in (1, 2):
        grads = arrays(seed)
        opt.step(grads)
        twins[0].step(grads[:1])
        twins[1].step(grads[1:])
    assert all_bits(ours) == all_bits(plain)
    assert (opt.groups[0].lr, opt.groups[1].lr) == (0.2, 0.7)


@pytest.mark.parametrize("momentum", [(0.0, 0.9), (0.9, 0.0)])
def test_rmsprop_has_velocity_if_any_group_has_momentum(momentum):
    ours, plain = arrays(0)[:2], arrays(0)[:2]
    opt = fastopt.RMSprop([{"params": p, "momentum": m} for p, m in zip(ours, momentum, strict=True)])
    twins = [fastopt.RMSprop(p, momentum=m) for p, m in zip(plain, momentum, strict=True)]
    assert [hasattr(t, "velocity") for t in twins] == [m > 0 for m in momentum]
    for seed in (1, 2):
        opt.step(arrays(seed)[:2])
        for twin, grad in zip(twins, arrays(seed), strict=False):
            twin.step(grad)
    assert all_bits(ours) == all_bits(plain)


@pytest.mark.parametrize("rule", CASES)
def test_dir_lists_all_readable_attributes(rule):
    opt = CASES[rule].make([{"params": values(3)}])
    hyper = {*_core.RULES[rule]["hyper"], *_core.RUN_HYPER, *_core.LIST_HYPER}
    if rule.startswith("adam"):
        hyper |= {"betas", "beta1", "beta2"}
    listed = {name for name in dir(opt) if not name.startswith("_")}
    assert listed >= {*hyper, *CASES[rule].states, "params", "step", "step_count", "skipped_steps"}
    assert ("amsgrad" in listed) == rule.startswith("adam")
    assert all(hasattr(opt, name) for name in dir(opt))
    group = opt.groups[0]
    assert {name for name in dir(group) if not name.startswith("_")} == {*hyper, "params"}
    assert all(hasattr(group, name) for name in dir(group))


# ---- counts ----


def test_steps_are_counted_once_for_all_groups_and_dtypes():
    ours = [values(40, dtype, 1) for dtype in DTYPES.values() for _ in range(2)]
    plain = [p.copy() for p in ours]
    opt = fastopt.Adam([{"params": ours[:3], "lr": 0.1}, {"params": ours[3:4]}, {"params": ours[4:]}])
    opt.lr = 0.1
    twins = [fastopt.Adam(p, lr=0.1) for p in plain]
    for t in range(1, 4):
        opt.step([p * 2 for p in ours])
        for p, twin in zip(plain, twins, strict=True):
            twin.step(p * 2)
        assert opt.step_count == t
    assert all_bits(ours) == all_bits(plain)


CLIPS = [{}, {"clip_norm": 1}, {"clip_value": 1}, {"clip_norm": 1, "clip_value": 1}]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("around", CLIPS)
@pytest.mark.parametrize("policy", ["skip", "raise"])
@pytest.mark.parametrize("rule", CASES)
def test_skipped_step_changes_only_skipped_steps(rule, policy, around, bad):
    params, grads = arrays(0), arrays(1)
    opt = CASES[rule].make(by_name(params), on_nonfinite=policy, **around)
    opt.step(grads)
    before = all_bits(params), state_bits(opt)
    grads[2][-1, -1, -1] = bad
    if policy == "raise":
        with pytest.raises(FloatingPointError, match=re.escape("grads['c'] has a NaN or an infinity")):
            opt.step(grads)
    else:
        opt.step(grads)
    assert (opt.step_count, opt.skipped_steps) == (1, 1)
    opt.skipped_steps = 0
    assert (all_bits(params), state_bits(opt)) == before


def test_nonfinite_gradients_propagate_by_default():
    w = np.ones(3)
    opt = fastopt.SGD(w)
    opt.step(np.array([1.0, np.nan, np.inf]))
    assert (np.isfinite(w).tolist(), opt.step_count, opt.skipped_steps) == ([True, False, False], 1, 0)


def test_repr_shows_rule_options_and_changed_options():
    opt = fastopt.AdamW(arrays(0), lr=0.5, clip_norm=1.0)
    for part in (
        "AdamW(3 arrays, lr=0.5",
        "beta1=0.9",
        "amsgrad=False",
        "weight_decay=0.01",
        "clip_norm=1.0",
    ):
        assert part in repr(opt)
    assert "maximize" not in repr(opt)
    assert repr(fastopt.SGD([{"params": [], "lr": 1}]).groups[0]) == "Group(lr=1)"


def test_groups_is_a_tuple():
    assert type(fastopt.SGD([{"params": np.ones(2)}]).groups) is tuple


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_assigned_state_is_copied_to_a_new_list(kind):
    opt, mine = fastopt.Adam([np.ones(2)]), [np.zeros(2)]
    opt.m = given = kind(mine)
    assert type(opt.m) is list
    assert opt.m is not given
    assert opt.m[0] is mine[0]


def test_rmsprop_created_with_momentum_has_velocity_even_if_all_groups_override_it():
    opt = fastopt.RMSprop([{"params": np.ones(2), "momentum": 0.0}], momentum=0.9)
    opt.groups[0].momentum = 0.5
    assert len(opt.velocity) == 1


def test_numpy_bools_are_accepted():
    opt = fastopt.Adam(np.ones(2), amsgrad=np.True_)
    assert opt.amsgrad is True
    assert fastopt.RMSprop(np.ones(2), centered=np.False_).centered is False
    assert fastopt.BatchNorm(2, unbiased=np.False_).unbiased is False


@pytest.mark.parametrize("make", [np.array, np.float32])
def test_zero_dimensional_arrays_are_accepted_as_numbers(make):
    half = make(0.5)
    assert fastopt.penalties.l1(np.ones(2), half) == 1.0
    assert fastopt.BatchNorm(2, eps=half, momentum=half).eps == 0.5
    assert fastopt.Dropout(half).p == fastopt.EMA(np.ones(2), decay=half).decay == 0.5
    assert fastopt.schedules.Constant(half)(0) == fastopt.SGD(np.ones(2), lr=half).lr == 0.5


def test_integer_too_large_for_a_float_is_out_of_range():
    with pytest.raises(ValueError, match=r"^strength must lie in \[0, inf\), got 1000"):
        fastopt.penalties.l1(np.ones(2), 10**400)


def test_new_arrays_ignore_the_default_torch_device():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    w = torch.ones(3)
    opt = fastopt.Momentum([w])
    saved = fastopt.Momentum([np.ones(3, np.float32)]).state_dict()
    with torch.device("meta"):
        opt.load_state_dict(saved)
        y = fastopt.init.he_normal((2, 2), generator=fastopt.Generator(1), like=w)
    assert y.device == opt.velocity[0].device == w.device
