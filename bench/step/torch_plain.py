"""torch: its loop over the parameters."""

from __future__ import annotations

from bench.case import Contestant
from bench.step import StepCase, _torch

NAME = "torch plain"
available = _torch.available


def make(case: StepCase) -> Contestant | None:
    return _torch.make(case, foreach=False)
