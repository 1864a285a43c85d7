"""fastopt, with its step captured once as a CUDA graph and then replayed."""

from __future__ import annotations

from bench import device
from bench.case import Competitor
from bench.step import StepCase, _cupy, ours

NAME = "fastopt graph"
available = _cupy.available


def make(case: StepCase) -> Competitor | None:
    if case.device != "cuda":
        return None
    plain = ours.make(case)
    return Competitor(device.capture(plain.run), plain.results)
