"""A cliff: a single huge gradient throws the weight far away, unless the norm of the gradient is clipped.

    pip install '.[demo]' && python examples/cliff.py

A linear recurrent network of one unit multiplies its input 50 times by the same weight w. To map 1 to 1/2, it
needs w = 0.5**(1/50). The loss is almost flat for w below 1, and rises like a wall a little above 1.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

LENGTH, TARGET, START = 50, 0.5, 1.12
BEST = TARGET ** (1 / LENGTH)
LR, STEPS, LIMIT = 0.002, 200, 1.0


def loss(w):
    with np.errstate(over="ignore"):
        return (w**LENGTH - TARGET) ** 2 / 2


def gradient(w):
    with np.errstate(over="ignore", invalid="ignore"):
        return (w**LENGTH - TARGET) * LENGTH * w ** (LENGTH - 1)


def descend(clip_norm):
    """Return the weight after each step, until it is no longer finite."""
    w = np.array([START])
    opt = fastopt.SGD(w, lr=LR, clip_norm=clip_norm)
    seen = [START]
    while len(seen) <= STEPS and np.isfinite(w[0]):
        opt.step(gradient(w))
        seen.append(float(w[0]))
    return seen


def draw(clipped, file):
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    w = np.linspace(0.9, 1.14, 400)
    ax.semilogy(w, loss(w) + 1e-9, color="0.7", label="loss")
    ax.semilogy(clipped, loss(np.array(clipped)) + 1e-9, "o-", markersize=3, label="with clip_norm=1")
    first = gradient(START)
    ax.annotate(
        f"without: the first step leads to w = {START - LR * first:.2g}",
        (START, loss(START)),
        (0.93, loss(START)),
        arrowprops={"arrowstyle": "<-"},
        va="center",
        bbox={"fc": "white", "ec": "none"},
    )
    ax.axvline(BEST, color="0.7", linestyle=":")
    ax.set(xlabel="w", ylabel="loss + 1e-9", title=f"a network that multiplies by w {LENGTH} times")
    ax.legend(frameon=False, loc="lower left")
    figure.savefig(file, dpi=120)


def main(file):
    plain, clipped = descend(None), descend(LIMIT)
    print(f"gradient at w = {START}: {gradient(START):.2g}")
    print("without clipping: w =", " -> ".join(f"{w:.3g}" for w in plain))
    print(
        f"with clip_norm={LIMIT:g}, after {STEPS} steps: w = {clipped[-1]:.6f}; the optimum is {BEST:.6f}"
    )
    draw(clipped, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "cliff.png"))
