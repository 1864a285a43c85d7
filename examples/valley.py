"""An ill-conditioned valley, a hundred times steeper across than along: the path of every optimizer.

    pip install '.[demo]' && python examples/valley.py

The learning rate of plain SGD is limited by the steep direction. It zigzags between the slopes and hardly moves
along the floor. Momentum accumulates the common part of successive steps. Per-parameter learning rates remove
the difference between the directions. RMSprop's steps, however, do not become shorter, and jump about the
floor unless the learning rate falls.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

STEEP = 100.0  # the curvature across the valley; along it, it is 1
START, STEPS = (-10.0, 1.0), 80
LEARNING_RATES = np.logspace(-3, 0, 61)  # each optimizer uses the best of these
OPTIMIZERS = {
    "SGD": {},
    "Momentum": {"momentum": 0.8},
    "Nesterov": {"momentum": 0.8, "form": "applied"},
    "AdaGrad": {},
    "RMSprop": {},
    "Adam": {},
}


def loss(x, y):
    with np.errstate(over="ignore"):  # if the learning rate is too high
        return 0.5 * (x**2 + STEEP * y**2)


def path(name, lr):
    """Return the points (STEPS + 1, 2) that an optimizer visits."""
    w = np.array(START)
    opt = getattr(fastopt, name)(w, lr=lr, **OPTIMIZERS[name])
    points = [w.copy()]
    for _ in range(STEPS):
        opt.step(np.array([1.0, STEEP]) * w)
        points.append(w.copy())
    return np.array(points)


def best(name):
    """Return the learning rate with the lowest final loss, and its path."""
    paths = {float(lr): path(name, lr) for lr in LEARNING_RATES}
    lr = min(paths, key=lambda lr: loss(*paths[lr][-1]))
    return lr, paths[lr]


def crossings(points):
    """Return how often a path changes from one slope of the valley to the other."""
    side = np.sign(points[:, 1])
    return int((side[1:] * side[:-1] < 0).sum())


def draw(paths, file):
    figure = Figure(figsize=(11, 6), layout="constrained")
    x, y = np.meshgrid(np.linspace(-11, 4, 200), np.linspace(-1.6, 1.6, 200))
    axes = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for ax, (name, points) in zip(axes, paths.items(), strict=True):
        ax.contour(x, y, loss(x, y), levels=np.logspace(-1, 2.2, 9), colors="0.8", linewidths=0.8)
        ax.plot(*points.T, "o-", markersize=2.5, linewidth=1)
        ax.plot(0, 0, "k+")
        ax.set_title(f"{name}: loss {loss(*points[-1]):.1e} after {STEPS} steps", fontsize=10)
    axes[0].set(xlim=(-11, 4), ylim=(-1.6, 1.6))
    figure.savefig(file, dpi=120)


def main(file):
    runs = {name: best(name) for name in OPTIMIZERS}
    print(
        f"initial loss {loss(*START):.0f}, {STEPS} steps, each optimizer with the best of "
        f"{len(LEARNING_RATES)} learning rates:"
    )
    for name, (lr, points) in runs.items():
        print(
            f"  {name:9} lr {lr:6.4f}  loss {loss(*points[-1]):8.1e}, "
            f"crosses the floor {crossings(points):2d} times"
        )
    draw({name: points for name, (_, points) in runs.items()}, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "valley.png"))
