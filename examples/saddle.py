"""A saddle point and a plateau: which optimizers escape, and after how many steps.

    pip install '.[demo]' && python examples/saddle.py

Near a saddle point and on a plateau the gradient almost vanishes, and with it the step of plain SGD. Momentum
accumulates steps, up to ten times the plain step at 0.9. A step that is divided by the root of the squared
gradients does not depend on how small they are.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

MAX_STEPS = 5000  # an optimizer that needs more counts as stuck
OPTIMIZERS = {
    "SGD": {"lr": 0.05},
    "Momentum": {"lr": 0.05, "momentum": 0.9},
    "Nesterov": {"lr": 0.05, "momentum": 0.9, "form": "applied"},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.05},
    "Adam": {"lr": 0.05},
}


def saddle(w):
    """Loss and gradient of x**2 / 2 - y**2 / 2 + y**4 / 4: a saddle point at 0, minima at y = -1 and 1."""
    x, y = w
    return x**2 / 2 - y**2 / 2 + y**4 / 4, np.array([x, y**3 - y])


def plateau(w):
    """Loss and gradient of 1 - exp(-x**2 / 2): a hollow in a plain."""
    hollow = np.exp(-(w[0] ** 2) / 2)
    return 1 - hollow, np.array([w[0] * hollow])


# Function, start, and the loss at which an optimizer has escaped. The slope at the plateau's start is 1.3e-3.
PLACES = {
    "saddle point": (saddle, (1.0, 1e-6), -0.2),
    "plateau": (plateau, (4.0,), 0.1),
}


def losses(name, place):
    """Return the loss before each step, until the optimizer has escaped or taken ``MAX_STEPS`` steps."""
    function, start, goal = PLACES[place]
    w = np.array(start)
    opt = getattr(fastopt, name)(w, **OPTIMIZERS[name])
    seen = []
    for _ in range(MAX_STEPS):
        value, grad = function(w)
        seen.append(value)
        if value <= goal:
            break
        opt.step(grad)
    return seen


def escaped(seen, place):
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
            free = escaped(seen, place)
            print(
                f"  {name:9}",
                f"escaped after {len(seen) - 1} steps" if free else f"stuck for {MAX_STEPS} steps",
            )
    draw(runs, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "saddle.png"))
