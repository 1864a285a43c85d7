"""fastopt, its step captured once as a CUDA graph and then replayed."""

from __future__ import annotations

from bench.case import Contestant
from bench.step import StepCase, _cupy, ours

NAME = "fastopt graph"
available = _cupy.available


def make(case: StepCase) -> Contestant | None:
    if case.device != "cuda":
        return None
    import cupy

    plain = ours.make(case)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        cupy.cuda.runtime.deviceSynchronize()
        stream.begin_capture()
        plain.run()
        graph = stream.end_capture()
    # A graph holds none of what it works on: the plain contestant does.
    return Contestant(graph.launch, lambda: plain.results())
