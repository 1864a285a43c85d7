"""Batch size and gradient noise: the error of a gradient that is the mean over B samples instead of all N.

    pip install '.[demo]' && python examples/batch_size.py

The mean of B samples drawn without replacement deviates from the mean of all N by sigma / sqrt(B), times
sqrt((N - B) / (N - 1)), which is 0 at B = N: 64 times the work removes some seven eighths of the noise. At the
same learning rate and after the same number of samples, small batches are therefore near the minimum long
before the full batch is, because they have taken more steps. With a single sample, however, about half of the
steps raise the loss, which ends far above that of mini-batches. With the full batch it falls at every step.

The data are scikit-learn's diabetes set of 442 patients: the progression of the disease, predicted from body
mass index and a blood value.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import fastopt
from command import picture_argument

FEATURES = [2, 8]  # body mass index, log of serum triglycerides: the two most predictive ones
START, LR, EPOCHS = (-0.6, 1.0), 0.05, 20
LAST = 5  # the final loss is the mean over so many epochs
NEAR = 0.1  # "near the minimum": a tenth of the excess loss at the start
SIZES, DRAWS = (1, 2, 4, 8, 16, 32, 64, 128, 256), 2000  # at least so many batches of each size
RUNS = {"stochastic, B = 1": 1, "mini-batch, B = 32": 32, "full batch, B = 442": None}
LINES = {
    "stochastic, B = 1": {"color": "#0072B2", "linewidth": 0.6},
    "mini-batch, B = 32": {"color": "#D55E00", "linewidth": 1},
    "full batch, B = 442": {"color": "black", "linewidth": 1, "marker": "o", "markersize": 3},
}


def data():
    """Return features (N, 2) and targets (N,), all in standard deviations (SD) from their mean."""
    x, y = load_diabetes(return_X_y=True)
    standard = fastopt.data.Standardizer()
    return standard.fit(x[:, FEATURES]).transform(x[:, FEATURES]), (y - y.mean()) / y.std()


def gradient(w, x, y):
    """Return the gradient of the loss, which is half the mean squared error."""
    return x.T @ (x @ w - y) / len(x)


def excess(points):
    """Return, for each of the points (K, 2), the full-batch loss minus its minimum."""
    x, y = data()
    distance = points - np.linalg.lstsq(x, y, rcond=None)[0]
    return ((distance @ (x.T @ x / len(x))) * distance).sum(axis=1) / 2


def noise(size, seed=0):
    """Return the RMS error of the gradient at the start, over many batches of ``size`` samples."""
    x, y = data()
    w, gradients = np.array(START), []
    batches = fastopt.data.minibatches(x, y, batch_size=size, seed=seed, drop_last=True)
    while len(gradients) < DRAWS:
        gradients += [gradient(w, *batch) for batch in batches]
    return rms(gradients - gradient(w, x, y))


def expected_noise(size):
    """Return the same from the formula."""
    x, y = data()
    single = x * (x @ np.array(START) - y)[:, None]  # the gradient of each sample alone
    return rms(single - single.mean(axis=0)) * np.sqrt((len(x) - size) / (len(x) - 1) / size)


def rms(errors):
    return float(np.sqrt(np.square(errors).sum(axis=1).mean()))


def path(size, seed=0):
    """Return the points (steps + 1, 2) that SGD visits in ``EPOCHS`` epochs."""
    w = np.array(START)
    opt, points = fastopt.SGD(w, lr=LR), [w.copy()]
    batches = fastopt.data.minibatches(*data(), batch_size=size, seed=seed)
    for _ in range(EPOCHS):
        for batch in batches:
            opt.step(gradient(w, *batch))
            points.append(w.copy())
    return np.array(points)


def samples_seen(points):
    """Return the number of samples seen at each point of a path.

    The last batch of an epoch may be shorter; this is ignored.
    """
    return np.linspace(0, EPOCHS * len(data()[0]), len(points))


def summary(points):
    """Return the samples seen until the loss was near its minimum (None: never), its mean excess over the last
    epochs, and the share of steps that raised it."""
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
        ax.set_xlabel("weight of body mass index (SD per SD)")
    axes[0].set_ylabel("weight of the blood value (SD per SD)")


def draw_noise(ax, measured):
    sizes = np.geomspace(1, 440, 300)
    infinite = r"$\sigma / \sqrt{B}$"
    ax.loglog(sizes, expected_noise(1) / np.sqrt(sizes), ":", color="0.4", label=infinite)
    finite = infinite + r"$ \cdot \sqrt{(N - B) / (N - 1)}$"
    ax.loglog(sizes, expected_noise(sizes), color="0.4", label=finite)
    ax.loglog(measured.keys(), measured.values(), "o", color="#D55E00", label="measured")
    ax.set(title="gradient noise", xlabel="batch size B (samples)")
    ax.set_ylabel("RMS error of the gradient (SD²)")
    ax.legend(frameon=False)


def draw_losses(ax, paths):
    for name, points in paths.items():
        ax.semilogy(samples_seen(points), excess(points), **LINES[name], label=name)
    ax.set(title="full-batch loss", xlabel="samples seen", ylim=(1e-7, 30))
    ax.set_ylabel("loss above its minimum (SD²)")
    ax.legend(frameon=False, ncols=2, loc="upper right")


def main(file):
    measured = {size: noise(size) for size in SIZES}
    print("gradient noise, measured and from sigma / sqrt(B) * sqrt((N - B) / (N - 1)):")
    for size, error in measured.items():
        print(f"  B = {size:3d}  {error:.4f}  {expected_noise(size):.4f}")
    paths = {name: path(size) for name, size in RUNS.items()}
    first = excess(np.array([START]))[0]
    print(f"SGD, lr {LR}, {EPOCHS} epochs; the loss starts at {first:.2f} above its minimum:")
    for name, points in paths.items():
        arrival, end, risen = summary(points)
        reached = f"after {arrival} samples" if arrival is not None else "not reached"
        print(
            f"  {name:20} {NEAR:.0%} of that {reached:18}  {end:.1e} in the last {LAST} epochs, "
            f"rises in {risen:.0%} of the steps"
        )
    draw(measured, paths, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "batch_size.png"))
