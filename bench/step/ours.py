"""fastopt."""

from __future__ import annotations

from collections.abc import Callable

import fastopt
from bench import device
from bench.case import Competitor
from bench.step import LR, WEIGHT_DECAY, StepCase
from fastopt import _core

NAME = "fastopt"
CLASSES = {
    "sgd": fastopt.SGD,
    "momentum": fastopt.Momentum,
    "nesterov": fastopt.Nesterov,
    "adagrad": fastopt.AdaGrad,
    "rmsprop": fastopt.RMSprop,
    "adam": fastopt.Adam,
    "adamw": fastopt.AdamW,
}
OPTIONS = {"nesterov": {"form": "applied"}, "adamw": {"weight_decay": WEIGHT_DECAY}}


def available() -> bool:
    return True


def make(case: StepCase) -> Competitor:
    params, grads = (device.to_device(case, arrays) for arrays in case.arrays())
    clip = case.max_norm if case.clip else None
    opt = CLASSES[case.rule](params, lr=LR, clip_norm=clip, **OPTIONS.get(case.rule, {}))
    limit = device.copy(case.bytes) if case.device == "cuda" else _limit(case, opt, params, grads)
    return Competitor(
        lambda: opt.step(grads), lambda: device.to_host(params), limit, capture=device.capture
    )


def _limit(case: StepCase, opt: fastopt.Optimizer, params: list, grads: list) -> Callable[[], object]:
    """Return the limit: a fastopt kernel with the same reads, writes and threads but no arithmetic. It runs
    on the same arrays and leaves them unchanged. A clip reads the gradients once more, so its limit first
    computes their maximum."""
    states = list(opt._states.values())
    stepper = _core.Stepper(f"move{len(states)}", params, states, [len(params)])

    def limit() -> None:
        if case.clip:
            _core.global_norm(grads, {"norm_type": "max"})
        stepper.step(grads)

    return limit
