"""L1 makes exact zeros, L2 makes small weights: a linear model most of whose features are irrelevant.

    pip install '.[demo]' && python examples/sparsity.py

L2 pulls a weight toward 0 in proportion to its size, so the pull fades as the weight shrinks. L1 pulls every
weight equally hard and drives those that the data do not support to exactly 0, if the step is proximal. With
the subgradient of L1, they only jump about 0.
"""

import numpy as np
from matplotlib.figure import Figure

import fastopt
from command import picture_argument

FEATURES, RELEVANT, SAMPLES, STEPS = 40, 5, 60, 4000
PENALTIES = {
    "none": {},
    "L2": {"l2": 0.2},
    "L1, subgradient": {"l1": 0.2},
    "L1, proximal": {"l1": 0.2, "l1_mode": "proximal"},
}


def data(seed=0):
    """Return samples (N, D), targets (N,) and the true weights (D,), all but the first few of which are 0."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(FEATURES)
    truth[:RELEVANT] = [3, -2, 1.5, -1, 1]
    x = rng.normal(size=(SAMPLES, FEATURES))
    return x, x @ truth + rng.normal(size=SAMPLES), truth


def fit(options):
    x, y, _ = data()
    w = fastopt.init.xavier_normal(
        (FEATURES, 1), generator=fastopt.Generator(0), dtype="float64"
    ).ravel()
    opt = fastopt.SGD(w, lr=0.05, **options)
    for _ in range(STEPS):
        opt.step(x.T @ (x @ w - y) / SAMPLES)
    return w


def draw(weights, file):
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for ax, (name, w) in zip(axes, weights.items(), strict=True):
        i = np.arange(FEATURES)
        ax.vlines(i, 0, w)
        ax.plot(i, w, "o", markersize=3)
        ax.plot(i[w == 0], w[w == 0], "o", markersize=5, mfc="white", mec="C3", label="exactly 0")
        ax.set_title(
            f"{name}: {(w == 0).sum()} of {FEATURES - RELEVANT} irrelevant weights are 0", fontsize=10
        )
    axes[-1].legend(frameon=False)
    for ax in axes[2:]:
        ax.set_xlabel("feature")
    figure.savefig(file, dpi=120)


def main(file):
    truth = data()[2]
    weights = {name: fit(options) for name, options in PENALTIES.items()}
    print(f"{FEATURES} weights, of which {RELEVANT} are relevant:")
    for name, w in weights.items():
        zeros, irrelevant = int((w == 0).sum()), np.abs(w[truth == 0])
        print(
            f"  {name:16} {zeros:2d} exact zeros; largest irrelevant weight {irrelevant.max():.3f}, "
            f"smallest relevant weight {np.abs(w[truth != 0]).min():.2f}"
        )
    draw(weights, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "sparsity.png"))
