"""optax under ``jax.jit``, with donated buffers."""

from __future__ import annotations

import numpy as np

from bench.case import Competitor, installed
from bench.step import LR, WEIGHT_DECAY, StepCase, _jax

NAME = "optax"


def available() -> bool:
    return installed("optax")


def make(case: StepCase) -> Competitor | None:
    import jax
    import optax

    params, grads = (_jax.to_device(case, arrays) for arrays in case.arrays())
    opt = _optimizer(case, optax)
    state = opt.init(params)

    def update(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(update, donate_argnums=(0, 1))

    def step() -> None:
        nonlocal params, state
        params, state = compiled(params, state, grads)

    conventions = {"eps_mode": "inside"} if case.rule == "adagrad" else {}
    return Competitor(
        step,
        lambda: [np.asarray(p) for p in params],
        wait=lambda: jax.block_until_ready((params, state)),
        conventions=conventions,
    )


def _optimizer(case: StepCase, optax):
    opt = {
        "sgd": lambda: optax.sgd(LR),
        "momentum": lambda: optax.sgd(LR, momentum=0.9),
        "nesterov": lambda: optax.sgd(LR, momentum=0.9, nesterov=True),
        "adagrad": lambda: optax.adagrad(LR, initial_accumulator_value=0.0, eps=1e-8),
        "rmsprop": lambda: optax.rmsprop(LR, decay=0.9, eps=1e-8, eps_in_sqrt=False),
        "adam": lambda: optax.adam(LR),
        "adamw": lambda: optax.adamw(LR, weight_decay=WEIGHT_DECAY),
    }[case.rule]()
    return optax.chain(optax.clip_by_global_norm(case.max_norm), opt) if case.clip else opt
