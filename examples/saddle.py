"""A saddle point and a plateau: who gets away, and after how many steps.

    pip install '.[demo]' && python examples/saddle.py

Near a saddle point and on a plateau the gradient almost vanishes, and with it the step of plain descent.
Momentum gathers speed, ten times at most with 0.9; a step divided by the root of the gradients' squares
does not care how small they are.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

MOST = 5000  # steps, after which an optimizer counts as caught
OPTIMIZERS = {
    "SGD": {"lr": 0.05},
    "Momentum": {"lr": 0.05, "momentum": 0.9},
    "Nesterov": {"lr": 0.05, "momentum": 0.9, "form": "applied"},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.05},
    "Adam": {"lr": 0.05},
}


def saddle(w):
    """x**2 / 2 - y**2 / 2 + y**4 / 4 at (x, y): a saddle point at 0, minima at y = -1 and 1. Loss, gradient."""
    x, y = w
    return x**2 / 2 - y**2 / 2 + y**4 / 4, np.array([x, y**3 - y])


def plateau(w):
    """A hollow in a plain: 1 - exp(-x**2 / 2). Loss, gradient."""
    hollow = np.exp(-(w[0] ** 2) / 2)
    return 1 - hollow, np.array([w[0] * hollow])


# Where to start, and at which loss one has got away. On the plateau the slope is 1.3e-3 at the start.
PLACES = {
    "saddle point": (saddle, (1.0, 1e-6), -0.2),
    "plateau": (plateau, (4.0,), 0.1),
}


def losses(name, place):
    """Loss by step, until the optimizer has got away or ``MOST`` steps are over."""
    function, start, goal = PLACES[place]
    w = np.array(start)
    opt = getattr(fastopt, name)(w, **OPTIMIZERS[name])
    seen = []
    for _ in range(MOST):
        value, grad = function(w)
        seen.append(value)
        if value <= goal:
            break
        opt.step(grad)
    return seen


def got_away(seen, place):
    return seen[-1] <= PLACES[place][2]


def draw(runs, file):
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for ax, (place, by_name) in zip(figure.subplots(1, 2), runs.items(), strict=True):
        for name, seen in by_name.items():
            ax.plot(range(1, len(seen) + 1), seen, label=name)
        ax.set(title=place, xlabel="step", ylabel="loss", xscale="log")
        ax.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main(file):
    runs = {place: {name: losses(name, place) for name in OPTIMIZERS} for place in PLACES}
    for place, by_name in runs.items():
        print(place)
        for name, seen in by_name.items():
            away = got_away(seen, place)
            print(
                f"  {name:9}",
                f"away after {len(seen) - 1} steps" if away else f"caught for {MOST} steps",
            )
    draw(runs, file)
    print(f"the losses: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "saddle.png"))
