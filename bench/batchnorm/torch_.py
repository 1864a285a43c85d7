"""torch's kernels, called without autograd; a block as users of torch write it."""

from __future__ import annotations

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.case import Competitor, installed
from bench.step._torch import capture, to_numpy, to_torch

NAME = "torch"


def available() -> bool:
    return installed("torch")


def make(case: BatchNormCase) -> Competitor | None:
    import torch

    if case.what == "block" and case.dtype in ("float16", "bfloat16"):
        # torch rounds the normalized values before the addition, which gives another result.
        return None
    x, dy, gamma, beta, mean, var = tensors(case)
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

    def block() -> None:
        leaves = [a.detach().requires_grad_() for a in (x, gamma, beta, residual)]
        normal = torch.nn.functional.batch_norm(leaves[0], mean, var, *leaves[1:3], True, MOMENTUM, EPS)
        y = torch.relu(normal + leaves[3])
        y.backward(dy)
        results[:] = [y.detach(), *(leaf.grad for leaf in leaves)]

    if case.what == "block":
        residual = to_torch(case.residual(), case.device)
        residual = residual.permute(0, 3, 1, 2) if case.axis == 3 else residual
    saved = forward() if case.what == "backward" else ()

    run = {"backward": backward, "block": block}.get(case.what, forward)
    return Competitor(run, lambda: arrays(case, results), capture=capture)


def tensors(case: BatchNormCase) -> list:
    """Return x, dy, gamma, beta and the running statistics."""
    x, dy, *others = (to_torch(a, case.device) for a in (*case.arrays(), *case.statistics()))
    if case.axis == 3:  # torch's channels_last
        x, dy = x.permute(0, 3, 1, 2), dy.permute(0, 3, 1, 2)
    return [x, dy, *others]


def arrays(case: BatchNormCase, results: list) -> list:
    """Return the results in the layout of the case."""
    last = [a.permute(0, 2, 3, 1) if case.axis == 3 and a.ndim == 4 else a for a in results]
    return [to_numpy(a) for a in last]
