"""torch: its fused kernels, which exist for all rules but RMSprop."""

from __future__ import annotations

from bench.case import Competitor
from bench.step import StepCase, _torch

NAME = "torch fused"
available = _torch.available


def make(case: StepCase) -> Competitor | None:
    return _torch.make(case, fused=True)
