"""torch: its plain implementation, a loop over the parameters."""

from __future__ import annotations

from bench.case import Competitor
from bench.step import StepCase, _torch

NAME = "torch plain"
available = _torch.available


def make(case: StepCase) -> Competitor | None:
    return _torch.make(case, foreach=False)
