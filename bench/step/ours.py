"""fastopt."""

from __future__ import annotations

import fastopt
from bench.step import LR, MAX_NORM, Case, Contestant

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


def available() -> bool:
    return True


def make(case: Case) -> Contestant:
    params, grads = case.arrays()
    options = {"form": "applied"} if case.rule == "nesterov" else {}
    clip = MAX_NORM if case.clip else None
    opt = CLASSES[case.rule](params, lr=LR, clip_norm=clip, **options)
    return Contestant(lambda: opt.step(grads), lambda: params)
