"""How long a call of ``opt.step(grads)`` keeps the host, whatever the device still has to do: Adam over lists
of small arrays, with the same gradients every time and with new objects over the same memory, as a
framework's backward pass makes them.

    python -m bench.host_time [--device cpu] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastopt
from bench import device
from bench.case import Case, installed

LENGTHS, ELEMENTS = (1, 161, 1000), 256
CALLS, ROUNDS = 40, 15  # fewer calls than a device queues before the host has to wait


def measure(where: str) -> list[dict]:
    """Microseconds a call."""
    found = []
    for length in LENGTHS:
        params, grads = (_arrays(where, length, seed) for seed in range(2))
        step = fastopt.Adam(params).step
        same = _microseconds(where, lambda grads=grads: grads, step)
        new = _microseconds(where, lambda grads=grads: [g.view() for g in grads], step)
        told = {"arrays": length, "same gradients": same, "new gradients": new}
        if peer := _torch_fused(where, length):
            told["torch fused"] = _microseconds(where, lambda: None, lambda grads, step=peer: step())
        found.append(told)
    return found


def _arrays(where: str, length: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    case = Case("", "", device=where)
    return device.put(case, [rng.normal(size=ELEMENTS).astype(np.float32) for _ in range(length)])


def _microseconds(where: str, make: Callable[[], object], step: Callable[[object], object]) -> float:
    """The median over rounds. Gradients are made before the clock starts, and a round begins when nothing
    is queued."""
    times = []
    for _ in range(ROUNDS):
        grads = [make() for _ in range(CALLS)]
        _synchronize(where)
        begin = time.perf_counter()
        for g in grads:
            step(g)
        times.append((time.perf_counter() - begin) / CALLS)
    _synchronize(where)
    return 1e6 * float(np.median(times[1:]))


def _synchronize(where: str) -> None:
    if where == "cuda":
        from cupy.cuda import runtime

        runtime.deviceSynchronize()


def _torch_fused(where: str, length: int) -> Callable[[], object] | None:
    if where == "cpu" or not installed("torch"):  # on a CPU a call is the work, too
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    params = [torch.randn(ELEMENTS, device=where, requires_grad=True) for _ in range(length)]
    for p in params:
        p.grad = torch.randn(ELEMENTS, device=where)
    return torch.optim.Adam(params, fused=True).step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.host_time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.device == "cuda" and (trouble := device.trouble()):
        parser.error(f"--device cuda: {trouble}")
    found = measure(args.device)
    for told in found:
        figures = ", ".join(f"{name} {us:.1f} us" for name, us in told.items() if name != "arrays")
        print(f"{told['arrays']} arrays: {figures}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
