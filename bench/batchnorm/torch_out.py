"""torch's kernels, called with ``out=``, which saves the allocation of the result.

``native_batch_norm`` has kernels with ``out=`` for the CPU and for CUDA. ``native_batch_norm_backward`` and
``native_dropout`` have none: their ``out=`` allocates a result and copies it, so neither has a competitor of
this kind."""

from __future__ import annotations

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.batchnorm.torch_ import arrays, tensors
from bench.case import Competitor, installed
from bench.step._torch import capture

NAME = "torch out"


def available() -> bool:
    return installed("torch")


def make(case: BatchNormCase) -> Competitor | None:
    if case.what not in ("forward", "evaluate"):
        return None
    import torch

    x, _, gamma, beta, mean, var = tensors(case)
    training = case.what == "forward"
    y = torch.full_like(x, torch.nan)
    saved = [torch.empty_like(mean) if training else mean.new_empty(0) for _ in range(2)]

    def forward() -> None:
        torch.native_batch_norm(x, gamma, beta, mean, var, training, MOMENTUM, EPS, out=(y, *saved))

    results = [y, mean, var] if training else [y]
    return Competitor(forward, lambda: arrays(case, results), capture=capture)
