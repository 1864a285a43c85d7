"""The limit: a kernel of ours with the same reads, writes and threads, and no arithmetic. A clip reads the
gradients once more, so its limit takes their largest first."""

from __future__ import annotations

import numpy as np

from bench.step import SLOTS, Case, Contestant
from fastopt import _core

NAME = "limit"


def available() -> bool:
    return True


def make(case: Case) -> Contestant:
    params, grads = case.arrays()
    slots = SLOTS[case.rule]
    states = [[p.copy() for p in params] for _ in range(slots)]
    stepper = _core.Stepper(f"move{slots}", params, states, [len(params)])
    norm = {"clip_norm_type": "max"}

    def step() -> None:
        if case.clip:
            _core.global_norm(grads, norm)
        stepper.step(grads)

    return Contestant(step, lambda: [np.empty(0)])
