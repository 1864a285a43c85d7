"""An ill-conditioned valley, a hundred times steeper across than along: the path of every optimizer.

    pip install '.[demo]' && python examples/valley.py

Plain descent must keep its rate below what the steep direction bears, and zig-zags between the slopes while it
hardly moves along the floor. Momentum adds up what the steps agree in. A rate of its own for every parameter
takes the difference between the directions away; RMSprop's steps then stay as long as they are, and hop
about the floor unless the rate falls.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

STEEP = 100.0  # the curvature across; along the valley it is 1
START, STEPS = (-10.0, 1.0), 80
RATES = np.logspace(-3, 0, 61)  # of which each optimizer gets the one that is best for it
OPTIMIZERS = {
    "SGD": {},
    "Momentum": {"momentum": 0.8},
    "Nesterov": {"momentum": 0.8, "form": "applied"},
    "AdaGrad": {},
    "RMSprop": {},
    "Adam": {},
}


def loss(x, y):
    with np.errstate(over="ignore"):  # where the rate was too high
        return 0.5 * (x**2 + STEEP * y**2)


def path(name, lr):
    """The points (STEPS + 1, 2) that an optimizer passes."""
    w = np.array(START)
    opt = getattr(fastopt, name)(w, lr=lr, **OPTIMIZERS[name])
    points = [w.copy()]
    for _ in range(STEPS):
        opt.step(np.array([1.0, STEEP]) * w)
        points.append(w.copy())
    return np.array(points)


def best(name):
    """The rate that ends lowest, and its path."""
    paths = {float(lr): path(name, lr) for lr in RATES}
    lr = min(paths, key=lambda lr: loss(*paths[lr][-1]))
    return lr, paths[lr]


def crossings(points):
    """How often a path goes from one slope of the valley to the other."""
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
        f"from a loss of {loss(*START):.0f}, {STEPS} steps, each with the best of {len(RATES)} rates:"
    )
    for name, (lr, points) in runs.items():
        print(
            f"  {name:9} lr {lr:6.4f}  loss {loss(*points[-1]):8.1e}, "
            f"crosses the floor {crossings(points):2d} times"
        )
    draw({name: points for name, (_, points) in runs.items()}, file)
    print(f"the paths: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "valley.png"))
