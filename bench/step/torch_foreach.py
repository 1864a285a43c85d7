"""torch: its foreach implementation, one kernel per operation over the whole list."""

from __future__ import annotations

from bench.case import Competitor
from bench.step import StepCase, _torch

NAME = "torch foreach"
available = _torch.available


def make(case: StepCase) -> Competitor | None:
    return _torch.make(case, foreach=True)
