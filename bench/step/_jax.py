"""JAX arrays on the device of a case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.case import Case


def to_device(case: Case, arrays: Iterable) -> list[Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    with jax.default_device(jax.devices(case.device)[0]):
        return jax.block_until_ready([jax.numpy.array(a) for a in arrays])
