"""thinc: its optimizer with compiled Adam, or SGD in NumPy. It supports only float32. It overwrites the
gradient, which is therefore refilled as part of the step, because nothing else in the benchmark computes a
new one."""

from __future__ import annotations

import numpy as np

from bench.case import Competitor, installed
from bench.step import LR, WEIGHT_DECAY, StepCase

NAME = "thinc"
BETAS = {
    "sgd": (0.0, 0.0),
    "adam": (0.9, 0.999),
    "adamw": (0.9, 0.999),
}


def available() -> bool:
    return installed("thinc")


def make(case: StepCase) -> Competitor | None:
    from thinc.optimizers import Optimizer

    if case.device != "cpu" or case.dtype != "float32" or case.rule not in BETAS or case.clip:
        return None
    params, grads = case.arrays()
    fresh = [g.copy() for g in grads]
    beta1, beta2 = BETAS[case.rule]
    decay = WEIGHT_DECAY if case.rule == "adamw" else 0.0
    opt = Optimizer(LR, beta1=beta1, beta2=beta2, eps=1e-8, L2=decay, grad_clip=0.0, use_averages=False)

    def step() -> None:
        for i, (p, g, new) in enumerate(zip(params, grads, fresh, strict=True)):
            np.copyto(g, new)
            opt((i, "w"), p, g)

    conventions = {} if case.rule == "sgd" else {"eps_mode": "hat", "decay_order": "after"}
    return Competitor(step, lambda: params, conventions=conventions)
