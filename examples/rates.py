"""AdaGrad's learning rate vanishes, RMSprop's does not: a target that moves after both have converged.

    pip install '.[demo]' && python examples/rates.py

Both divide the learning rate by the root of squared gradients. AdaGrad sums the squares of all steps, so the
divisor only grows. RMSprop averages the squares over the recent past, so old gradients are forgotten.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

STEPS, MOVE_STEP = 6000, 3000  # the target moves from 1 to -1 at this step
NOISE, NEAR = 1.0, 0.2  # standard deviation of the gradient noise; distance that counts as reached
OPTIMIZERS = {"AdaGrad": {"lr": 0.05}, "RMSprop": {"lr": 0.005}}


def follow(name, seed=0):
    """Return the weight and its effective learning rate, the factor of its gradient, after each step."""
    w, noise = np.zeros(1), NOISE * np.random.default_rng(seed).normal(size=STEPS)
    opt = getattr(fastopt, name)(w, **OPTIMIZERS[name])
    weights, rates = [], []
    for t in range(STEPS):
        opt.step(w - target(t) + noise[t])
        squares = opt.sum_sq if name == "AdaGrad" else opt.mean_sq
        weights.append(float(w[0]))
        rates.append(float(opt.lr / (np.sqrt(squares[0][0]) + opt.eps)))
    return np.array(weights), np.array(rates)


def target(t):
    return 1.0 if t < MOVE_STEP else -1.0


def arrival(weights, begin, end):
    """Return the number of steps from ``begin`` until the weight is near the target, or None."""
    near = np.flatnonzero(np.abs(weights[begin:end] - target(begin)) < NEAR)
    return int(near[0]) if near.size else None


def draw(runs, file):
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (weights, rates) in runs.items():
        left.plot(weights, label=name, linewidth=1)
        right.semilogy(rates, label=name, linewidth=1)
    left.plot([target(t) for t in range(STEPS)], "k:", label="target")
    left.set(xlabel="step", title="weight")
    right.set(xlabel="step", title="effective learning rate")
    for ax in (left, right):
        ax.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main(file):
    runs = {name: follow(name) for name in OPTIMIZERS}
    for name, (weights, rates) in runs.items():
        print(
            f"{name}: effective learning rate {rates[100]:.4f} after 100 steps, {rates[-1]:.4f} after {STEPS}"
        )
        first, second = arrival(weights, 0, MOVE_STEP), arrival(weights, MOVE_STEP, STEPS)
        later = (
            f"after {second} steps" if second is not None else f"not within {STEPS - MOVE_STEP} steps"
        )
        print(f"  reaches the first target after {first} steps, the second {later}")
    draw(runs, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "rates.png"))
