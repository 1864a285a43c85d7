"""torch: its fused kernels; RMSprop has none."""

from __future__ import annotations

from bench.case import Contestant
from bench.step import StepCase, _torch

NAME = "torch fused"
available = _torch.available


def make(case: StepCase) -> Contestant | None:
    return _torch.make(case, fused=True)
