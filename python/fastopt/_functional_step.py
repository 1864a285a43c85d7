"""Selection of rules and hyper-parameters, and the stateless step of :mod:`fastopt.functional`."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getfullargspec
from typing import Any

from fastopt import _checks, _core
from fastopt._array_utils import Arrays
from fastopt._options import DEFAULTS, StepOptions


def nesterov_rule(form: str) -> str:
    """Return the rule of this form of Nesterov's momentum. ``"lookahead"`` steps as plain momentum does; only
    the point at which the gradient is taken differs."""
    rules = {"lookahead": "momentum", "applied": "nesterov"}
    return rules[_checks.choice("form", form, rules)]


def rmsprop_rule(centered: bool, with_momentum: bool) -> str:
    """Return the rule of this variant of RMSprop."""
    return "rmsprop" + "_centered" * centered + "_momentum" * with_momentum


def has_momentum(momentum: Any) -> bool:
    """Whether RMSprop needs a velocity for ``momentum``. A value that is no number is rejected later."""
    try:
        return float(momentum) != 0.0
    except (TypeError, ValueError, OverflowError):
        return True


def velocity_hyper(
    lr: float, momentum: float, dampening: float, first_step: str, lr_in_velocity: bool
) -> dict[str, Any]:
    """Return the hyper-parameters of rules with a velocity."""
    return {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "first_step": first_step,
        "lr_in_velocity": lr_in_velocity,
    }


def velocity_step(name: str, step: int | None, dampening: float, first_step: str) -> int:
    """Return the step number, which is required only if the first step differs (dampening)."""
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
    """Make the step of the function ``of`` with this rule; return whether it stepped."""
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
