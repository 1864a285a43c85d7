"""Host time per call of ``opt.step(grads)``, excluding device execution.

Adam steps lists of small arrays of CuPy (on the CPU: NumPy) and of torch. The gradients are either the same
objects every time or new ones, as a framework's backward pass creates them. On the CPU, the time includes the
work.

On a device, "until done" includes the device's execution. If it is hardly longer, the device kept up, and the
time is the host's own.

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
    """Return a report for each library and list length: microseconds per call."""
    return [_measure(where, library, n) for library in _libraries(where) for n in LENGTHS]


def _libraries(where: str) -> list[str]:
    libraries = ["cupy" if where == "cuda" else "numpy"]
    if installed("torch"):
        import torch

        if where == "cpu" or torch.cuda.is_available():
            libraries.append("torch")
    return libraries


def _measure(where: str, library: str, length: int) -> dict:
    params, grads = (_arrays(where, library, length, seed) for seed in range(2))
    step = fastopt.Adam(params).step
    report: dict = {"library": library, "arrays": length}

    def add(name: str, make: Callable[[], object], step: Callable[[object], object]) -> None:
        report[name], done = _microseconds(where, make, step)
        if where == "cuda":
            report[f"{name}, until done"] = done

    add("same gradients", lambda: grads, step)
    add("new gradients", lambda: [_new_view(g) for g in grads], step)
    if library == "torch":
        fused = _torch_fused(params, grads)
        add("torch fused", lambda: None, lambda grads: fused())
    return report


def _arrays(where: str, library: str, length: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=ELEMENTS).astype(np.float32) for _ in range(length)]
    if library == "torch":
        import torch

        return [torch.from_numpy(a).to(where) for a in arrays]
    return device.to_device(Case("", "", device=where), arrays)


def _new_view(array):
    """Return another object over the same memory."""
    return array.view(array.shape) if hasattr(array, "requires_grad") else array.view()


def _microseconds(
    where: str, make: Callable[[], object], step: Callable[[object], object]
) -> tuple[float, float]:
    """Return the time per call until it returns and until its work is done, as medians over the rounds. The
    gradients are created before the clock starts, and a round begins when nothing is queued."""
    times = []
    for _ in range(ROUNDS):
        grads = [make() for _ in range(CALLS)]
        _synchronize(where)
        begin = time.perf_counter()
        for g in grads:
            step(g)
        returned = time.perf_counter()
        _synchronize(where)
        times.append((returned - begin, time.perf_counter() - begin))
    returned, done = np.median(times[1:], axis=0) * 1e6 / CALLS
    return float(returned), float(done)


def _synchronize(where: str) -> None:
    if where == "cuda":
        from cupy.cuda import runtime

        runtime.deviceSynchronize()


def _torch_fused(params: list, grads: list) -> Callable[[], object]:
    import torch

    copies = [p.clone().requires_grad_() for p in params]
    for p, g in zip(copies, grads, strict=True):
        p.grad = g
    return torch.optim.Adam(copies, fused=True).step


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.host_time", description="Measure the host time per optimizer step."
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda", help="default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    args = parser.parse_args()
    if args.device == "cuda" and (reason := device.unavailable_reason()):
        parser.error(f"--device cuda: {reason}")
    reports = measure(args.device)
    for report in reports:
        figures = ", ".join(
            f"{name} {us:.1f} us" for name, us in report.items() if isinstance(us, float)
        )
        print(f"{report['arrays']} arrays of {report['library']}: {figures}")
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
