"""torch: its fused step where it has one (RMSprop has none), ``clip_grad_norm_`` before it."""

from __future__ import annotations

import importlib.util

from bench.step import LR, MAX_NORM, Case, Contestant

NAME = "torch"


def available() -> bool:
    return importlib.util.find_spec("torch") is not None


def make(case: Case) -> Contestant | None:
    import torch

    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=LR, fused=True),
        "momentum": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, fused=True),
        "nesterov": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True, fused=True),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=LR, eps=1e-8, fused=True),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=LR, alpha=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=LR, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=LR, fused=True),
    }
    arrays, grads = case.arrays()
    params = [torch.from_numpy(a).requires_grad_() for a in arrays]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g)
    opt = makers[case.rule](params)

    def step() -> None:
        if case.clip:
            torch.nn.utils.clip_grad_norm_(params, MAX_NORM)
        opt.step()

    return Contestant(step, lambda: [p.detach().numpy() for p in params])
