"""The pictures of why: each script runs as a command without a screen, draws something, and what it says
follows from what it computes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the examples need matplotlib: pip install '.[demo]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = ("valley", "saddle", "cliff", "rates", "sparsity")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PICTURES)
def test_the_script_runs_and_draws(name, tmp_path):
    from matplotlib.image import imread

    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", picture],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(picture) in done.stdout
    shades = imread(picture).reshape(-1, 4)[:, :3]
    assert len(np.unique(shades, axis=0)) > 20


def test_valley():
    """Plain descent zig-zags at every step and ends last; momentum ends far below it."""
    valley = load("valley")
    points = {name: valley.best(name)[1] for name in valley.OPTIMIZERS}
    losses = {name: valley.loss(*p[-1]) for name, p in points.items()}
    assert valley.crossings(points["SGD"]) == valley.STEPS
    assert max(losses, key=losses.get) == "SGD"
    assert losses["Momentum"] < 1e-4 * losses["SGD"]


def test_saddle():
    saddle = load("saddle")
    for place in saddle.PLACES:
        runs = {name: saddle.losses(name, place) for name in saddle.OPTIMIZERS}
        assert all(saddle.got_away(seen, place) for seen in runs.values())
        steps = {name: len(seen) for name, seen in runs.items()}
        assert max(steps, key=steps.get) == "SGD"
        assert steps["SGD"] <= 10 * steps["Momentum"]
        assert max(steps["RMSprop"], steps["Adam"]) < min(steps["Momentum"], steps["Nesterov"])


def test_cliff():
    cliff = load("cliff")
    assert abs(cliff.descend(None)[1]) > 1000
    assert not np.isfinite(cliff.descend(None)[-1])
    assert cliff.descend(cliff.LIMIT)[-1] == pytest.approx(cliff.BEST, abs=1e-6)


def test_rates():
    rates = load("rates")
    adagrad, rmsprop = (rates.follow(name) for name in ("AdaGrad", "RMSprop"))
    assert (np.diff(adagrad[1]) <= 0).all()
    assert adagrad[1][-1] < adagrad[1][100] / 5
    assert rmsprop[1][-1] > rmsprop[1][100] / 2
    for weights, _ in (adagrad, rmsprop):
        assert rates.arrival(weights, 0, rates.MOVE) is not None
    assert rates.arrival(adagrad[0], rates.MOVE, rates.STEPS) is None
    assert rates.arrival(rmsprop[0], rates.MOVE, rates.STEPS) is not None


def test_sparsity():
    sparsity = load("sparsity")
    truth = sparsity.data()[2]
    fits = {name: sparsity.fit(options) for name, options in sparsity.PENALTIES.items()}
    zeros = {name: int((w[truth == 0] == 0).sum()) for name, w in fits.items()}
    assert zeros["none"] == zeros["L2"] == zeros["L1, subgradient"] == 0
    assert zeros["L1, proximal"] > 0.8 * (truth == 0).sum()
    assert (fits["L1, proximal"][truth != 0] != 0).all()
    largest = {name: np.abs(w[truth == 0]).max() for name, w in fits.items()}
    assert largest["L1, subgradient"] < largest["L2"] < largest["none"]
