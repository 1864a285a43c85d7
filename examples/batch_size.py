"""Batch size against noise: what a gradient loses when it is the mean over B samples and not over all N.

    pip install '.[demo]' && python examples/batch_size.py

The mean of B samples, drawn without replacement, misses the mean of all by sigma / sqrt(B), times
sqrt((N - B) / (N - 1)), which is 0 at B = N: 64 times the work takes some seven eighths of the noise away. So,
at the same rate and after as many samples, small batches have come near the minimum long before the whole set
has, for they have taken more steps. But a single sample then leads astray as often as not, and the loss stays
far above that of mini-batches; with the whole set it falls at every step.

The data are scikit-learn's 442 diabetics: how their illness went on, from body mass and a blood value.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import fastopt
from command import picture_argument

FEATURES = [2, 8]  # body mass index, log of serum triglycerides: the two that say most
START, LR, EPOCHS = (-0.6, 1.0), 0.05, 20
LAST = 5  # epochs over which the loss in the end is a mean
NEAR = 0.1  # of the distance to the minimal loss at the start
SIZES, DRAWS = (1, 2, 4, 8, 16, 32, 64, 128, 256), 2000  # how many batches of each size
RUNS = {"stochastic, B = 1": 1, "mini-batch, B = 32": 32, "whole set, B = 442": None}
LINES = {
    "stochastic, B = 1": {"color": "#0072B2", "linewidth": 0.6},
    "mini-batch, B = 32": {"color": "#D55E00", "linewidth": 1},
    "whole set, B = 442": {"color": "black", "linewidth": 1, "marker": "o", "markersize": 3},
}


def data():
    """Features (N, 2) and targets (N,), all in standard deviations (SD) from their mean."""
    x, y = load_diabetes(return_X_y=True)
    standard = fastopt.data.Standardizer()
    return standard.fit(x[:, FEATURES]).transform(x[:, FEATURES]), (y - y.mean()) / y.std()


def gradient(w, x, y):
    """Of the loss, half the mean square error."""
    return x.T @ (x @ w - y) / len(x)


def excess(points):
    """How far the whole set's loss at each of the points (K, 2) is above its minimum."""
    x, y = data()
    away = points - np.linalg.lstsq(x, y, rcond=None)[0]
    return ((away @ (x.T @ x / len(x))) * away).sum(axis=1) / 2


def noise(size, seed=0):
    """The gradient's error with batches of one size, at the start: the RMS over many of them."""
    x, y = data()
    w, found = np.array(START), []
    batches = fastopt.data.minibatches(x, y, batch_size=size, seed=seed, drop_last=True)
    while len(found) < DRAWS:
        found += [gradient(w, *batch) for batch in batches]
    return rms(found - gradient(w, x, y))


def expected_noise(size):
    x, y = data()
    single = x * (x @ np.array(START) - y)[:, None]  # the gradient of each sample alone
    return rms(single - single.mean(axis=0)) * np.sqrt((len(x) - size) / (len(x) - 1) / size)


def rms(errors):
    return float(np.sqrt(np.square(errors).sum(axis=1).mean()))


def path(size, seed=0):
    """The points (steps + 1, 2) that SGD passes in ``EPOCHS`` epochs."""
    w = np.array(START)
    opt, points = fastopt.SGD(w, lr=LR), [w.copy()]
    batches = fastopt.data.minibatches(*data(), batch_size=size, seed=seed)
    for _ in range(EPOCHS):
        for batch in batches:
            opt.step(gradient(w, *batch))
            points.append(w.copy())
    return np.array(points)


def samples_seen(points):
    """At each point of a path; the last batch of an epoch may be shorter, which is left out of account."""
    return np.linspace(0, EPOCHS * len(data()[0]), len(points))


def summary(points):
    """Samples until the loss was near its minimum (None: never), its mean excess in the end, and the share of
    steps that raised it."""
    losses = excess(points)
    near = np.flatnonzero(losses < NEAR * losses[0])
    arrival = round(samples_seen(points)[near[0]]) if near.size else None
    return arrival, losses[-LAST * (len(losses) // EPOCHS) :].mean(), (np.diff(losses) > 0).mean()


def draw(measured, paths, file):
    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    draw_paths(above.subplots(1, 3, sharex=True, sharey=True), paths)
    left, right = below.subplots(1, 2)
    draw_noise(left, measured)
    draw_losses(right, paths)
    figure.savefig(file, dpi=120)


def draw_paths(axes, paths):
    x, y = np.meshgrid(np.linspace(-0.8, 1.2, 100), np.linspace(-0.3, 1.3, 100))
    heights = excess(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
    for ax, (name, points) in zip(axes, paths.items(), strict=True):
        ax.contour(x, y, heights, levels=np.geomspace(0.005, 1, 8), colors="0.8", linewidths=0.8)
        ax.plot(*points.T, **LINES[name])
        ax.set_title(f"{name}: {len(points) - 1:,} steps", fontsize=10)
        ax.set_xlabel("weight of body mass (SD per SD)")
    axes[0].set_ylabel("weight of the blood value (SD per SD)")


def draw_noise(ax, measured):
    sizes = np.geomspace(1, 440, 300)
    endless = r"$\sigma / \sqrt{B}$"
    ax.loglog(sizes, expected_noise(1) / np.sqrt(sizes), ":", color="0.4", label=endless)
    finite = endless + r"$ \cdot \sqrt{(N - B) / (N - 1)}$"
    ax.loglog(sizes, expected_noise(sizes), color="0.4", label=finite)
    ax.loglog(measured.keys(), measured.values(), "o", color="#D55E00", label="measured")
    ax.set(title="the gradient's noise", xlabel="batch size B (samples)")
    ax.set_ylabel("RMS error of the gradient (SD²)")
    ax.legend(frameon=False)


def draw_losses(ax, paths):
    for name, points in paths.items():
        ax.semilogy(samples_seen(points), excess(points), **LINES[name], label=name)
    ax.set(title="the loss of the whole set", xlabel="samples seen", ylim=(1e-7, 30))
    ax.set_ylabel("loss above its minimum (SD²)")
    ax.legend(frameon=False, ncols=2, loc="upper right")


def main(file):
    measured = {size: noise(size) for size in SIZES}
    print("noise of the gradient, measured and by sigma / sqrt(B) * sqrt((N - B) / (N - 1)):")
    for size, found in measured.items():
        print(f"  B {size:3d}  {found:.4f}  {expected_noise(size):.4f}")
    paths = {name: path(size) for name, size in RUNS.items()}
    first = excess(np.array([START]))[0]
    print(f"SGD, lr {LR}, {EPOCHS} epochs; the loss is {first:.2f} above its minimum at first:")
    for name, points in paths.items():
        arrival, end, risen = summary(points)
        reached = f"after {arrival} samples" if arrival is not None else "not reached"
        print(
            f"  {name:18} {NEAR:.0%} of that {reached:18}  {end:.1e} in the last {LAST} epochs, "
            f"a rise in {risen:.0%} of the steps"
        )
    draw(measured, paths, file)
    print(f"the picture: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "batch_size.png"))
