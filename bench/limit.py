"""What a layer's limit is made of: kernels of ours that read or copy with its threads and compute
nothing with it."""

from __future__ import annotations

import numpy as np

from fastopt import _core
from fastopt import functional as F


def read(*arrays: np.ndarray) -> None:
    """Every byte once: the largest magnitude."""
    _core.global_norm(list(arrays), {"norm_type": "max"})


def copy(x: np.ndarray, out: np.ndarray, residual: np.ndarray | None = None) -> None:
    """Dropout that drops nothing: every byte of ``x``, and of ``residual``, read once, and ``out``
    written."""
    F.dropout_forward(x, 0.0, seed=0, residual=residual, out=out)
