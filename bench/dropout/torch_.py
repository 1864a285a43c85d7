"""torch's dropout; backward is called without autograd."""

from __future__ import annotations

from bench.case import Competitor, installed
from bench.dropout import DropoutCase, P
from bench.step._torch import capture, to_numpy, to_torch

NAME = "torch"


def available() -> bool:
    return installed("torch")


def make(case: DropoutCase) -> Competitor | None:
    import torch

    x, dy = (to_torch(a, case.device) for a in case.arrays())
    results: list = []
    if case.what == "forward":

        def forward() -> None:
            results[:] = [torch.nn.functional.dropout(x, P)]

        return Competitor(forward, lambda: [to_numpy(a) for a in results], capture=capture)
    y, kept = torch.native_dropout(x, P, True)

    def backward() -> None:
        results[:] = [y, torch.ops.aten.native_dropout_backward(dy, kept, 1 / (1 - P))]

    return Competitor(backward, lambda: [to_numpy(a) for a in results], capture=capture)
