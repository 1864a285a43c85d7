"""Schedules: compared with the formula in plain Python and with torch where torch has the same convention, at
the ends, with repr, equality and pickle; and ReduceOnPlateau, which has state, resumed."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import fastopt
from fastopt import schedules as s

PI = math.pi
FORMULAS = {
    "constant": (s.Constant(0.3), lambda t: 0.3),
    "step": (s.Step(0.3, every=7, factor=0.5), lambda t: 0.3 * 0.5 ** (t // 7)),
    "multi-step": (
        s.MultiStep(0.3, [5, 9, 30], factor=0.1),
        lambda t: 0.3 * 0.1 ** ((t >= 5) + (t >= 9) + (t >= 30)),
    ),
    "exponential": (s.Exponential(0.3, 0.9, every=3), lambda t: 0.3 * 0.9 ** (t / 3)),
    "linear": (
        s.Polynomial(0.3, 20, end=0.1),
        lambda t: max(0.3 - 0.2 * t / 20, 0.1),
    ),
    "polynomial": (
        s.Polynomial(0.3, 20, power=2.5),
        lambda t: 0.3 * max(1 - t / 20, 0) ** 2.5,
    ),
    "cosine": (
        s.Cosine(0.3, 20, end=0.1),
        lambda t: 0.1 + 0.2 * (1 + math.cos(PI * min(t / 20, 1))) / 2,
    ),
    "cosine, restarted": (
        s.Cosine(0.3, 10, restarts=True),
        lambda t: 0.3 * (1 + math.cos(PI * (t % 10) / 10)) / 2,
    ),
    "cosine, restarted with growing cycles": (
        s.Cosine(0.3, 5, restarts=True, growth=2),
        lambda t: 0.3 * (1 + math.cos(PI * position_in_cycle(t, 5))) / 2,
    ),
    "warm-up": (
        s.Warmup(10, s.Exponential(0.3, 0.5), start=0.1),
        lambda t: 0.1 + 0.2 * t / 10 if t < 10 else 0.3 * 0.5 ** (t - 10),
    ),
    "warm-up to a function": (s.Warmup(4, lambda t: 1.0 + t), lambda t: t / 4 if t < 4 else t - 3.0),
}


def position_in_cycle(t, length):
    """Return the position of t in its cycle, from 0 to 1; each cycle is twice as long as the one before."""
    k = int(math.log2(t / length + 1))
    return (t - length * (2**k - 1)) / (length * 2**k)


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_schedule_matches_its_formula(schedule, formula):
    for t in range(40):
        assert schedule(t) == pytest.approx(formula(t), rel=1e-13, abs=1e-16)
        assert type(schedule(t)) is float


def test_first_and_last_values_are_exact():
    for schedule in (s.Cosine(0.3, 7, end=0.1), s.Polynomial(0.3, 7, end=0.1, power=0.5)):
        assert (schedule(0), schedule(7), schedule(10**15)) == (0.3, 0.1, 0.1)
    assert s.Cosine(0.3, 7, restarts=True)(7 * 10**12) == 0.3


@pytest.mark.parametrize("lr", [0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("end", [1e-3, 3e-3, 1e-6, 0.07, 1.0])
def test_first_learning_rate_is_exact(lr, end):
    assert s.Polynomial(lr, 100, end=end)(0) == lr
    assert s.Cosine(lr, 100, end=end)(0) == lr
    assert s.Cosine(lr, 100, end=end, restarts=True)(300) == lr
    assert s.Cosine(lr, 100, end=end, restarts=True, growth=2)(300) == lr


@pytest.mark.parametrize(
    "schedule",
    [s.Step(0.0, every=1, factor=2.0), s.Exponential(0.0, 3.0), s.MultiStep(0.0, range(2000), 2.0)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_learning_rate_of_zero_stays_zero_if_the_factor_overflows(schedule):
    assert schedule(2000) == 0.0


TORCH_EQUIVALENTS = {
    "StepLR": (s.Step(1.0, 3, 0.5), {"step_size": 3, "gamma": 0.5}),
    "MultiStepLR": (s.MultiStep(1.0, (2, 5), 0.5), {"milestones": [2, 5], "gamma": 0.5}),
    "ExponentialLR": (s.Exponential(1.0, 0.8), {"gamma": 0.8}),
    "PolynomialLR": (s.Polynomial(1.0, 8, power=2), {"total_iters": 8, "power": 2}),
    "CosineAnnealingLR": (s.Cosine(1.0, 19, end=0.1), {"T_max": 19, "eta_min": 0.1}),
    "CosineAnnealingWarmRestarts": (
        s.Cosine(1.0, 3, end=0.1, restarts=True, growth=2),
        {"T_0": 3, "T_mult": 2, "eta_min": 0.1},
    ),
    "OneCycleLR": (s.OneCycle(1.0, 20), {"max_lr": 1.0, "total_steps": 20}),
    "OneCycleLR, linear": (
        s.OneCycle(1.0, 20, warmup=0.5, start_div=10, end_div=100, shape="linear"),
        {
            "max_lr": 1.0,
            "total_steps": 20,
            "pct_start": 0.5,
            "div_factor": 10,
            "final_div_factor": 100,
            "anneal_strategy": "linear",
        },
    ),
}


@pytest.mark.parametrize("name", TORCH_EQUIVALENTS)
def test_schedules_match_torch(torch, name):
    ours, options = TORCH_EQUIVALENTS[name]
    opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    theirs = getattr(torch.optim.lr_scheduler, name.partition(",")[0])(opt, **options)
    for t in range(20):
        assert ours(t) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-12, abs=1e-15), t
        opt.step()
        if t < 19:
            theirs.step()


def test_one_cycle_keeps_its_last_value():
    cycle = s.OneCycle(1.0, 10, end_div=10)
    assert cycle(9) == cycle(100) == 1 / 25 / 10
    assert s.OneCycle(1.0, 2, warmup=0.1)(0) == 1.0  # too short for a warm-up


@pytest.mark.parametrize(
    "schedule", [v[0] for k, v in FORMULAS.items() if k != "warm-up to a function"]
)
def test_schedules_support_repr_equality_hash_and_pickle(schedule):
    twin = pickle.loads(pickle.dumps(schedule))
    assert twin == schedule == eval(repr(schedule), vars(s))
    assert hash(twin) == hash(schedule)
    with pytest.raises(AttributeError):
        schedule.lr = 1.0


NUMPY_ARGUMENTS = {
    "step": lambda i, f: s.Step(f(0.1), every=i(10), factor=f(0.5)),
    "multi-step": lambda i, f: s.MultiStep(f(0.1), [i(10), i(200)], factor=f(0.5)),
    "exponential": lambda i, f: s.Exponential(f(0.1), f(0.5), every=i(10)),
    "polynomial": lambda i, f: s.Polynomial(f(0.1), i(200), end=f(0.01), power=f(1.5)),
    "cosine": lambda i, f: s.Cosine(f(0.1), i(20), restarts=True, growth=i(2)),
    "warm-up": lambda i, f: s.Warmup(i(200), s.Constant(f(0.1)), start=f(0.01)),
    "one-cycle": lambda i, f: s.OneCycle(f(0.1), i(200), f(0.25), start_div=f(10.0)),
}


@pytest.mark.parametrize("make", NUMPY_ARGUMENTS.values(), ids=NUMPY_ARGUMENTS)
def test_numpy_scalars_give_the_same_values_as_python_numbers(make):
    theirs, plain = make(np.uint8, np.float16), make(int, lambda x: float(np.float16(x)))
    assert repr(theirs) == repr(plain)
    assert [theirs(t) for t in range(300)] == [plain(t) for t in range(300)]


def test_optimizer_uses_the_schedule():
    w, schedule = np.zeros(1), s.Step(1.0, every=2, factor=0.5)
    opt = fastopt.SGD(w)
    for _ in range(4):
        opt.lr = schedule(opt.step_count)
        opt.step(-np.ones(1))
    assert w[0] == 1 + 1 + 0.5 + 0.5


# ---- ReduceOnPlateau ----

VALUES = [5.0, 4.0, 4.0, 3.9, 3.0, 3.0, 3.0, math.nan, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def manual_rates(values, patience, min_delta, cooldown):
    """Return the learning rate after each value; each reduction halves it."""
    lr, best, bad, rest, rates = 1.0, math.inf, 0, 0, []
    for value in values:
        if value < best - min_delta:
            best, bad = value, 0
        elif rest == 0:
            bad += 1
        rest = max(rest - 1, 0)
        if bad == patience:
            lr, bad, rest = lr / 2, 0, cooldown
        rates.append(lr)
    return rates


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("min_delta", [0.0, 0.5])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_reduce_on_plateau_matches_manual_computation(patience, min_delta, cooldown, mode):
    plateau = s.ReduceOnPlateau(
        1.0, factor=0.5, patience=patience, min_delta=min_delta, cooldown=cooldown, mode=mode
    )
    sign = 1 if mode == "min" else -1
    rates = [plateau.update(sign * value) for value in VALUES]
    assert rates == manual_rates(VALUES, patience, min_delta, cooldown)
    assert plateau.lr == rates[-1] < 1.0


@pytest.mark.parametrize("cooldown", [0, 2])
def test_reduce_on_plateau_matches_torch_with_patience_minus_one(torch, cooldown):
    opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        opt, factor=0.5, patience=2, threshold=0.5, threshold_mode="abs", cooldown=cooldown
    )
    ours = s.ReduceOnPlateau(1.0, factor=0.5, patience=3, min_delta=0.5, cooldown=cooldown)
    for value in VALUES:
        theirs.step(value)
        assert ours.update(value) == opt.param_groups[0]["lr"]


def test_reduce_on_plateau_counts_nan_as_the_first_value():
    assert s.ReduceOnPlateau(1.0, factor=0.5, patience=1).update(math.nan) == 0.5


def test_reduce_on_plateau_does_not_raise_lr_below_min_lr():
    plateau = s.ReduceOnPlateau(0.1, min_lr=0.5, patience=1)
    assert [plateau.update(1.0) for _ in range(2)] == [0.1, 0.1]


def test_reduce_on_plateau_repr_round_trips():
    plateau = s.ReduceOnPlateau(0.1, factor=0.5, patience=3, mode="max", min_lr=0.01)
    assert repr(plateau) == (
        "ReduceOnPlateau(0.1, factor=0.5, patience=3, min_delta=0.0, mode='max', cooldown=0, min_lr=0.01)"
    )
    assert repr(eval(repr(plateau), vars(s))) == repr(plateau)


def test_reduce_on_plateau_stops_at_min_lr():
    plateau = s.ReduceOnPlateau(1.0, factor=0.5, patience=1, min_lr=0.3)
    assert [plateau.update(1.0) for _ in range(5)] == [1.0, 0.5, 0.3, 0.3, 0.3]


@pytest.mark.parametrize("value", ["1", "low", None, [1.0], 10**400], ids=lambda v: str(v)[:4])
def test_reduce_on_plateau_rejects_other_types_and_does_not_count_them(value):
    plateau = s.ReduceOnPlateau(1.0, patience=2, cooldown=2)
    for _ in range(4):
        plateau.update(np.float32(1.0))
    before = plateau.state_dict()
    assert before["cooling"] > 0
    with pytest.raises(TypeError, match=r"^value must be a number, got "):
        plateau.update(value)
    assert plateau.state_dict() == before


def test_milestones_may_be_an_iterator():
    assert s.MultiStep(1.0, iter([2, 3])) == s.MultiStep(1.0, [2, 3])


@pytest.mark.parametrize("done", range(len(VALUES)))
def test_reduce_on_plateau_resumes_from_its_state(done):
    def make():
        return s.ReduceOnPlateau(1.0, factor=0.5, patience=2, cooldown=2)

    uninterrupted, interrupted, resumed = make(), make(), make()
    rates = [uninterrupted.update(value) for value in VALUES]
    for value in VALUES[:done]:
        interrupted.update(value)
    resumed.load_state_dict(pickle.loads(pickle.dumps(interrupted.state_dict())))
    assert [resumed.update(value) for value in VALUES[done:]] == rates[done:]


INVALID = {
    "a negative lr": (lambda: s.Constant(-1), ValueError, r"lr must lie in \[0, inf\), got -1"),
    "NaN": (lambda: s.Cosine(math.nan, 3), ValueError, "lr must lie in"),
    "a string as lr": (lambda: s.Cosine("1", 3), TypeError, "lr must be a number, got '1'"),
    "steps": (lambda: s.Cosine(1, 0), ValueError, "steps must be 1 or more, got 0"),
    "fractional steps": (lambda: s.Polynomial(1, 0.5), TypeError, "steps must be an integer"),
    "one step": (lambda: s.OneCycle(1, 1), ValueError, "steps must be 2 or more"),
    "no end": (lambda: s.Polynomial(1, 3, end=-1), ValueError, "end must lie in"),
    "no power": (lambda: s.Polynomial(1, 3, power=0), ValueError, r"power must lie in \(0, inf\)"),
    "factor": (lambda: s.Step(1, 3, factor=0), ValueError, r"factor must lie in \(0, inf\), got 0"),
    "every": (lambda: s.Step(1, 0), ValueError, "every must be 1 or more"),
    "milestone": (lambda: s.MultiStep(1, [3, -1]), ValueError, r"milestones\[1\] must be 0 or more"),
    "milestones": (
        lambda: s.MultiStep(1, 3),
        TypeError,
        "milestones must be a sequence of steps, got 3",
    ),
    "growth": (lambda: s.Cosine(1, 3, growth=0.5), TypeError, "growth must be an integer"),
    "restarts": (lambda: s.Cosine(1, 3, restarts=2), TypeError, "restarts must be True or False"),
    "then": (lambda: s.Warmup(3, 0.1), TypeError, "then must be a schedule, got 0.1"),
    "then is a class": (
        lambda: s.Warmup(3, s.Constant),
        TypeError,
        "then must be a schedule, got <class .*Constant'>",
    ),
    "warmup": (lambda: s.OneCycle(1, 9, warmup=1), ValueError, r"warmup must lie in \(0, 1\)"),
    "shape": (lambda: s.OneCycle(1, 9, shape="cos"), ValueError, "shape must be one of 'cosine', "),
    "a step": (lambda: s.Constant(1)(-1), ValueError, "step must be 0 or more"),
    "a mode": (lambda: s.ReduceOnPlateau(1, mode="auto"), ValueError, "mode must be one of 'min', "),
    "patience": (lambda: s.ReduceOnPlateau(1, patience=0), ValueError, "patience must be 1 or more"),
    "factor 1": (lambda: s.ReduceOnPlateau(1, factor=1), ValueError, r"factor must lie in \(0, 1\)"),
    "a state": (
        lambda: s.ReduceOnPlateau(1).load_state_dict(s.ReduceOnPlateau(1, mode="max").state_dict()),
        ValueError,
        "state_dict has mode 'max', expected 'min'",
    ),
    "no state": (lambda: s.ReduceOnPlateau(1).load_state_dict({}), ValueError, "state_dict lacks"),
    "a state's best": (
        lambda: (p := s.ReduceOnPlateau(1)).load_state_dict({**p.state_dict(), "best": "low"}),
        TypeError,
        "best must be a number, got 'low'",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), INVALID.values(), ids=INVALID)
def test_invalid_arguments_raise(call, kind, message):
    with pytest.raises(kind, match="^" + message):
        call()
