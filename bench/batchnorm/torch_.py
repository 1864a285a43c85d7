"""torch's own kernels, without autograd's bookkeeping around them."""

from __future__ import annotations

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.case import Contestant, installed
from bench.step._torch import to_numpy, to_torch

NAME = "torch"


def available() -> bool:
    return installed("torch")


def make(case: BatchNormCase) -> Contestant | None:
    import torch

    if case.device != "cpu":
        return None
    x, dy, gamma, beta = map(to_torch, case.arrays())
    mean, var = map(to_torch, case.statistics())
    if case.axis == 3:  # which is torch's channels_last
        x, dy = x.permute(0, 3, 1, 2), dy.permute(0, 3, 1, 2)
    results: list = []

    def forward():
        training = case.what != "evaluate"
        y, *saved = torch.native_batch_norm(x, gamma, beta, mean, var, training, MOMENTUM, EPS)
        results[:] = [y, mean, var] if training else [y]
        return saved

    def backward() -> None:
        results[:] = torch.ops.aten.native_batch_norm_backward(
            dy, x, gamma, mean, var, *saved, True, EPS, [True, True, True]
        )

    saved = forward() if case.what == "backward" else ()

    def arrays():
        first, *rest = results
        return [to_numpy(first.permute(0, 2, 3, 1) if case.axis == 3 else first), *map(to_numpy, rest)]

    return Contestant(backward if case.what == "backward" else forward, arrays)
