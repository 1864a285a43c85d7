"""The parts of a layer's limit: fastopt kernels that read or copy with the same threads, but compute
nothing."""

from __future__ import annotations

import numpy as np

from fastopt import _core
from fastopt import functional as F


def read(*arrays: np.ndarray) -> None:
    """Read every byte once: compute the largest magnitude."""
    _core.global_norm(list(arrays), {"norm_type": "max"})


def copy(x: np.ndarray, out: np.ndarray, residual: np.ndarray | None = None) -> None:
    """Read every byte of ``x`` and ``residual`` once and write ``out``: a dropout that drops nothing."""
    F.dropout_forward(x, 0.0, seed=0, residual=residual, out=out)
