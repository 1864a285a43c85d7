"""scikit-learn: the optimizers of its ``MLPClassifier``."""

from __future__ import annotations

from bench.case import Competitor, installed
from bench.step import LR, StepCase

NAME = "sklearn"


def available() -> bool:
    return installed("sklearn")


def make(case: StepCase) -> Competitor | None:
    from sklearn.neural_network import _stochastic_optimizers as optimizers

    if case.device != "cpu" or case.clip:
        return None
    params, grads = case.arrays()
    if case.rule in ("momentum", "nesterov"):
        nesterov = case.rule == "nesterov"
        opt = optimizers.SGDOptimizer(params, LR, momentum=0.9, nesterov=nesterov)
    elif case.rule == "adam":
        opt = optimizers.AdamOptimizer(params, LR)
    else:
        return None
    conventions = {"eps_mode": "hat"} if case.rule == "adam" else {}
    return Competitor(lambda: opt.update_params(params, grads), lambda: params, conventions=conventions)
