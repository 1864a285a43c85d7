"""JAX: a Bernoulli mask under ``jax.jit``, with a new key for each call."""

from __future__ import annotations

from itertools import count

import numpy as np

from bench.case import Competitor, installed
from bench.dropout import DropoutCase, P
from bench.step import _jax

NAME = "JAX"


def available() -> bool:
    return installed("jax")


def make(case: DropoutCase) -> Competitor | None:
    import jax

    x, dy = _jax.to_device(case, case.arrays())
    seeds, results = count(), []

    @jax.jit
    def forward(x, seed):
        kept = jax.random.bernoulli(jax.random.key(seed), 1 - P, x.shape)
        return drop(x, kept), kept

    @jax.jit
    def drop(x, kept):
        return jax.numpy.where(kept, x / (1 - P), 0)

    y, kept = forward(x, next(seeds))

    def run() -> None:
        results[:] = [forward(x, next(seeds))[0]] if case.what == "forward" else [y, drop(dy, kept)]

    return Competitor(
        run, lambda: [np.asarray(a) for a in results], wait=lambda: jax.block_until_ready(results)
    )
