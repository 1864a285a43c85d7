"""torch: a kernel for each operation, over the whole list."""

from __future__ import annotations

from bench.case import Contestant
from bench.step import StepCase, _torch

NAME = "torch foreach"
available = _torch.available


def make(case: StepCase) -> Contestant | None:
    return _torch.make(case, foreach=True)
