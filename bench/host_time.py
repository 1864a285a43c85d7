"""How long a call of ``opt.step(grads)`` keeps the host, whatever a device still has to do: Adam over lists of
small arrays, CuPy's (on the host NumPy's) and torch's, with the same gradients every time and with new objects,
as a framework's backward pass makes them. On the host a call is the work, too.

On a device, "until done" adds what it still had to do: where that is hardly more, the device kept up, and the
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
    """Microseconds a call."""
    return [_measure(where, library, n) for library in _libraries(where) for n in LENGTHS]


def _libraries(where: str) -> list[str]:
    own = ["cupy" if where == "cuda" else "numpy"]
    if installed("torch"):
        import torch

        if where == "cpu" or torch.cuda.is_available():
            own.append("torch")
    return own


def _measure(where: str, library: str, length: int) -> dict:
    params, grads = (_arrays(where, library, length, seed) for seed in range(2))
    step = fastopt.Adam(params).step
    told: dict = {"library": library, "arrays": length}

    def tell(name: str, make: Callable[[], object], step: Callable[[object], object]) -> None:
        told[name], done = _microseconds(where, make, step)
        if where == "cuda":
            told[f"{name}, until done"] = done

    tell("same gradients", lambda: grads, step)
    tell("new gradients", lambda: [_again(g) for g in grads], step)
    if library == "torch":
        fused = _torch_fused(params, grads)
        tell("torch fused", lambda: None, lambda grads: fused())
    return told


def _arrays(where: str, library: str, length: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=ELEMENTS).astype(np.float32) for _ in range(length)]
    if library == "torch":
        import torch

        return [torch.from_numpy(a).to(where) for a in arrays]
    return device.put(Case("", "", device=where), arrays)


def _again(array):
    """Another object over the same memory."""
    return array.view(array.shape) if hasattr(array, "requires_grad") else array.view()


def _microseconds(
    where: str, make: Callable[[], object], step: Callable[[object], object]
) -> tuple[float, float]:
    """A call's time until it returns and until its work is done, medians over rounds. Gradients are made before
    the clock starts, and a round begins when nothing is queued."""
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

    own = [p.clone().requires_grad_() for p in params]
    for p, g in zip(own, grads, strict=True):
        p.grad = g
    return torch.optim.Adam(own, fused=True).step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.host_time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.device == "cuda" and (trouble := device.trouble()):
        parser.error(f"--device cuda: {trouble}")
    found = measure(args.device)
    for told in found:
        figures = ", ".join(f"{name} {us:.1f} us" for name, us in told.items() if isinstance(us, float))
        print(f"{told['arrays']} arrays of {told['library']}: {figures}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
