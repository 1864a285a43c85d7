"""torch's optimizers, in each of their three implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.case import Competitor, dtype_of, installed
from bench.step import LR, WEIGHT_DECAY, StepCase

OPTIMIZERS = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {"eps": 1e-8}),
    "rmsprop": ("RMSprop", {"alpha": 0.9}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {"weight_decay": WEIGHT_DECAY}),
}
UNSUPPORTED = {
    # torch has no fused RMSprop.
    ("rmsprop", ("fused", True)),
    # The foreach implementation adds the velocity to the gradient in place, which would change the next step.
    ("nesterov", ("foreach", True)),
}


def available() -> bool:
    return installed("torch")


def make(case: StepCase, **implementation: bool) -> Competitor | None:
    """Create a competitor. ``implementation`` is ``fused=True``, ``foreach=True`` or ``foreach=False``."""
    if (case.rule, *implementation.items()) in UNSUPPORTED:
        return None
    step, params, _ = stepper(case, **implementation)
    return Competitor(step, lambda: [to_numpy(p) for p in params], capture=capture)


def stepper(case: StepCase, **implementation: bool):
    """Return a step, its parameters and the optimizer."""
    import torch

    arrays, grads = case.arrays()
    params = [to_torch(a, case.device).requires_grad_() for a in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = to_torch(g, case.device)
    name, options = OPTIMIZERS[case.rule]
    opt = getattr(torch.optim, name)(params, lr=LR, **options, **implementation)

    def step() -> None:
        if case.clip:
            torch.nn.utils.clip_grad_norm_(params, case.max_norm)
        opt.step()

    return step, params, opt


def capture(calls: Callable[[], object]) -> Callable[[], object]:
    """Capture what ``calls`` queue as a CUDA graph, and return its replay."""
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    return lambda held=calls: graph.replay()


def to_torch(array: np.ndarray, device: str = "cpu"):
    """Return a tensor over the same memory, or a copy on a device. torch does not accept NumPy arrays of
    bfloat16."""
    import torch

    if array.dtype == dtype_of("bfloat16"):
        return torch.from_numpy(array.view(np.int16)).to(device).view(torch.bfloat16)
    return torch.from_numpy(array).to(device)


def to_numpy(tensor) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).cpu().numpy().view(dtype_of("bfloat16"))
    return tensor.detach().cpu().numpy()
