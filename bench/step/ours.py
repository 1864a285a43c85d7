"""fastopt."""

from __future__ import annotations

from collections.abc import Callable

import fastopt
from bench import device
from bench.case import Contestant
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


def make(case: StepCase) -> Contestant:
    params, grads = (device.put(case, arrays) for arrays in case.arrays())
    clip = case.max_norm if case.clip else None
    opt = CLASSES[case.rule](params, lr=LR, clip_norm=clip, **OPTIONS.get(case.rule, {}))
    limit = device.copy(case.bytes) if case.device == "cuda" else _limit(case, opt, params, grads)
    return Contestant(
        lambda: opt.step(grads), lambda: device.get(params), limit, capture=device.capture
    )


def _limit(case: StepCase, opt: fastopt.Optimizer, params: list, grads: list) -> Callable[[], object]:
    """A kernel of ours with the same reads, writes and threads and no arithmetic, on the same arrays,
    which it leaves as they are. A clip reads the gradients once more, so its limit takes their largest
    first."""
    states = list(opt._states.values())
    stepper = _core.Stepper(f"move{len(states)}", params, states, [len(params)])

    def limit() -> None:
        if case.clip:
            _core.global_norm(grads, {"norm_type": "max"})
        stepper.step(grads)

    return limit
