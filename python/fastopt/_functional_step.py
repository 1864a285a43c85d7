"""Which rule makes a step, with which hyper-parameters, and a step without an object behind it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getfullargspec
from typing import Any

from fastopt import _checks, _core
from fastopt._array_utils import Arrays
from fastopt._options import DEFAULTS, StepOptions


def nesterov_rule(form: str) -> str:
    """The rule that makes the step of this form of Nesterov's momentum. ``"lookahead"`` has momentum's:
    it differs in where the gradient is taken."""
    rules = {"lookahead": "momentum", "applied": "nesterov"}
    return rules[_checks.choice("form", form, rules)]


def rmsprop_rule(centered: bool, with_momentum: bool) -> str:
    """The rule's name for this kind of RMSprop."""
    return "rmsprop" + "_centered" * centered + "_momentum" * with_momentum


def has_momentum(momentum: Any) -> bool:
    """Whether RMSprop needs a velocity for it. What is no number at all is refused later, by name."""
    try:
        return float(momentum) != 0.0
    except (TypeError, ValueError, OverflowError):
        return True


def velocity_hyper(
    lr: float, momentum: float, dampening: float, first_step: str, lr_in_velocity: bool
) -> dict[str, Any]:
    """Hyper-parameters of a velocity."""
    return {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "first_step": first_step,
        "lr_in_velocity": lr_in_velocity,
    }


def velocity_step(name: str, step: int | None, dampening: float, first_step: str) -> int:
    """The step, which matters only to a dampened first one."""
    if step is None and dampening != 0.0 and first_step == "grad":
        raise ValueError(
            f"{name} with dampening requires step=, because the first step is not dampened"
        )
    return 1 if step is None else step


def make_step(
    of: Callable[..., bool],
    rule: str,
    param: Arrays,
    grad: Arrays,
    states: list[Arrays],
    step: int,
    hyper: dict[str, Any],
    options: StepOptions,
) -> bool:
    """The step that a function of :mod:`fastopt.functional` makes with this rule."""
    if options and not options.keys() <= DEFAULTS.keys():
        _checks.option_names(of.__name__, options, [*getfullargspec(of).kwonlyargs, *DEFAULTS])
    single = not isinstance(param, (list, tuple))
    params = [param] if single else list(param)
    lists = [[s] if single else s for s in states]
    for name, arrays in zip(_core.RULES[rule]["states"], lists, strict=True):
        if not isinstance(arrays, (list, tuple)):
            raise TypeError(f"{name} has type {type(arrays).__name__}, expected a list of arrays")
    step = _checks.count("step", step, least=1)
    stepper = _core.Stepper(
        rule,
        params,
        [list(arrays) for arrays in lists],
        [len(params)],
        None,
        "param" if single else "params",
        "grad" if single else "grads",
    )
    hyper = {**hyper, **options}
    stepper.set_hyper(0, hyper)
    stepper.set_list_hyper(hyper)
    stepper.step_count = step - 1
    return stepper.step([grad] if single else grad)
