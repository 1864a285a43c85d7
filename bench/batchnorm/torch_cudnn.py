"""cuDNN's kernels, called through torch as its own layer calls them where it finds them suitable."""

from __future__ import annotations

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.batchnorm.torch_ import arrays, tensors
from bench.case import Contestant, installed
from bench.step._torch import capture

NAME = "torch cuDNN"


def available() -> bool:
    if not installed("torch"):
        return False
    import torch

    return torch.cuda.is_available() and torch.backends.cudnn.is_available()


def make(case: BatchNormCase) -> Contestant | None:
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
    return Contestant(run, lambda: arrays(case, results), capture=capture)
