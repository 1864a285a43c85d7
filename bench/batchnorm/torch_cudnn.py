"""cuDNN's kernels, called through torch as torch's layer calls them when it selects cuDNN."""

from __future__ import annotations

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.batchnorm.torch_ import arrays, tensors
from bench.case import Competitor, installed
from bench.step._torch import capture

NAME = "torch cuDNN"


def available() -> bool:
    if not installed("torch"):
        return False
    import torch

    return torch.cuda.is_available() and torch.backends.cudnn.is_available()


def make(case: BatchNormCase) -> Competitor | None:
    if case.device != "cuda" or case.what not in ("forward", "backward"):
        return None
    import torch

    x, dy, gamma, beta, mean, var = tensors(case)
    results: list = []

    def forward():
        y, *saved = torch.ops.aten.cudnn_batch_norm(x, gamma, beta, mean, var, True, MOMENTUM, EPS)
        results[:] = [y, mean, var]
        return saved

    def backward() -> None:
        results[:] = torch.ops.aten.cudnn_batch_norm_backward(
            x, dy, gamma, mean, var, *saved[:2], EPS, saved[2]
        )

    saved = forward() if case.what == "backward" else ()
    run = backward if case.what == "backward" else forward
    return Competitor(run, lambda: arrays(case, results), capture=capture)
