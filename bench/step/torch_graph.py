"""torch: its fused kernels, captured once as a CUDA graph and then replayed."""

from __future__ import annotations

from bench.case import Competitor, installed
from bench.step import StepCase, _torch

NAME = "torch graph"


def available() -> bool:
    if not installed("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def make(case: StepCase) -> Competitor | None:
    if case.device != "cuda" or case.rule not in ("adam", "adamw"):
        return None
    import torch

    step, params, opt = _torch.stepper(case, fused=True, capturable=True)
    before = [p.detach().clone() for p in params]
    step()  # creates the state, which must exist before the capture
    with torch.no_grad():
        for p, old in zip(params, before, strict=True):
            p.copy_(old)
        for state in opt.state.values():
            for tensor in state.values():
                tensor.zero_()
    return Competitor(_torch.capture(step), lambda: [_torch.to_numpy(p) for p in params])
