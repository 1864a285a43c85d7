"""The scripts that plot: each one runs without a display and draws something, and its results support its
docstring."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from subprocesses import PACKAGES

for package in ("matplotlib", "sklearn"):
    pytest.importorskip(package, reason=f"the examples need {package}: pip install '.[demo]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
PICTURES = ("valley", "saddle", "cliff", "rates", "sparsity", "batch_size", "batch_norm", "overfitting")

# The slowest function of each script. Its results are cached, because several tests need them.
SLOW = {"batch_norm": "survey", "batch_size": "path", "overfitting": "train"}


def load(name):
    script = importlib.import_module(name)
    slow = SLOW.get(name)
    if slow and not hasattr(getattr(script, slow), "computed"):
        setattr(script, slow, cached(getattr(script, slow)))
    return script


def cached(function):
    def call(option, seed=0):
        return call.computed(option, seed)

    call.computed = cache(function)
    return call


def as_command(name, *arguments):
    """Run a script in this process as a command that ends with an exit status, and return the status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return ended.value.code


def check_picture(picture):
    from matplotlib.image import imread

    shades = imread(picture).reshape(-1, 4)[:, :3]
    assert len(np.unique(shades, axis=0)) > 20


@pytest.mark.parametrize("name", PICTURES)
def test_script_runs_and_draws(name, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    load(name).main(str(picture))
    out, err = capsys.readouterr()
    assert str(picture) in out
    assert err == ""
    check_picture(picture)


@pytest.mark.parametrize("python", [[], ["-OO"]])  # -OO removes the docstring
def test_script_runs_as_a_process_without_a_display(python, tmp_path):
    done = subprocess.run(
        [sys.executable, *python, EXAMPLES / "cliff.py", "cliff.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PACKAGES, "PYTHONIOENCODING": "utf-8", "DISPLAY": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cliff.png" in done.stdout
    check_picture(tmp_path / "cliff.png")


@pytest.mark.parametrize("name", PICTURES)
def test_script_prints_help_and_rejects_invalid_arguments(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_command(name, "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"usage: {name}.py [-h] [FILE]\n")
    assert f"(default: {name}.png)" in out
    for arguments, message in (
        (
            ["none/a.png"],
            "argument FILE: cannot draw to 'none/a.png': the folder 'none' does not exist",
        ),
        (["a.png", "b.png"], "unrecognized arguments: b.png"),
    ):
        assert as_command(name, *arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
    assert not list(tmp_path.iterdir())


def test_valley():
    """Plain SGD zigzags at every step and ends with the largest loss; momentum ends far below it."""
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
        assert all(saddle.escaped(seen, place) for seen in runs.values())
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
        assert rates.arrival(weights, 0, rates.MOVE_STEP) is not None
    assert rates.arrival(adagrad[0], rates.MOVE_STEP, rates.STEPS) is None
    assert rates.arrival(rmsprop[0], rates.MOVE_STEP, rates.STEPS) is not None


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


@pytest.mark.parametrize("seed", range(3))
def test_batch_size(seed):
    batch_size = load("batch_size")
    for size in batch_size.SIZES:
        assert batch_size.noise(size, seed) == pytest.approx(batch_size.expected_noise(size), rel=0.05)
    assert batch_size.noise(442, seed) < 1e-12  # all samples, in another order
    paths = [batch_size.path(size, seed) for size in batch_size.RUNS.values()]
    assert [len(points) - 1 for points in paths] == [20 * 442, 20 * 14, 20]
    (single, single_end, astray), (mini, mini_end, _), (whole, whole_end, risen) = map(
        batch_size.summary, paths
    )
    assert 5 * single < mini < 20 * 442
    assert whole is None
    assert 20 * mini_end < single_end < whole_end
    assert astray == pytest.approx(0.5, abs=0.03)
    assert risen == 0


def test_batch_size_excess_is_the_loss_above_its_minimum():
    batch_size = load("batch_size")
    x, y = batch_size.data()
    minimum = np.linalg.lstsq(x, y, rcond=None)[1] / len(x) / 2
    points = np.array([[1.0, 0.0], [-2.0, 3.0]])
    losses = [np.square(x @ w - y).mean() / 2 for w in points]
    np.testing.assert_allclose(batch_size.excess(points), losses - minimum, rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_batch_norm(seed):
    """Without BatchNorm the network trains at He's scale only; with it, from a sixteenth to four times that."""
    batch_norm = load("batch_norm")
    plain, normed = (batch_norm.survey(norm, seed) >= batch_norm.TRAINED for norm in (False, True))
    assert batch_norm.trained_range(batch_norm.SCALES, plain.any(axis=1)) == (1, 1)
    lowest, largest = batch_norm.trained_range(batch_norm.SCALES, normed.any(axis=1))
    assert (lowest, largest >= 4) == (1 / 16, True)
    rates = [
        batch_norm.trained_range(batch_norm.LEARNING_RATES, trained.any(axis=0))
        for trained in (plain, normed)
    ]
    assert rates[1][1] >= 4 * rates[0][1]
    assert normed.sum() > 5 * plain.sum()


@pytest.mark.parametrize("seed", range(3))
def test_batch_norm_preserves_the_signal_and_small_weights_train_at_a_smaller_learning_rate(seed):
    batch_norm = load("batch_norm")
    half, once, twice = (batch_norm.hidden_rms(False, scale, seed) for scale in (0.5, 1, 2))
    assert (once / half, twice / once) == pytest.approx((64, 64), rel=1e-3)
    assert batch_norm.hidden_rms(True, 1 / 16, seed) == pytest.approx(
        batch_norm.hidden_rms(True, 4, seed), rel=0.05
    )
    slow = batch_norm.LEARNING_RATES[0]
    assert batch_norm.train_and_evaluate(True, 1 / 16, slow, seed) > 2 * batch_norm.train_and_evaluate(
        True, 1, slow, seed
    )


@pytest.mark.parametrize("seed", range(2))
def test_overfitting(seed):
    overfitting = load("overfitting")
    (plain, stopped), (dropped, both) = (
        overfitting.train(p, seed) for p in overfitting.DROPOUTS.values()
    )
    for states, best in ((plain, stopped), (dropped, both)):
        assert best == states[best.epoch - 1]
        assert best.validation == min(s.validation for s in states[: best.epoch + overfitting.PATIENCE])
        assert best.gap < 0.6 * states[-1].gap
    assert plain[-1].training < 0.05
    assert plain[-1].validation > 1.9 * stopped.validation
    assert dropped[-1].gap < 0.55 * plain[-1].gap
    assert both.epoch > stopped.epoch
    assert min(stopped.test_accuracy, dropped[-1].test_accuracy) > plain[-1].test_accuracy + 0.02


def test_overfitting_early_stopping_returns_the_state_before_the_first_rise(monkeypatch):
    overfitting = load("overfitting")
    monkeypatch.setattr(overfitting, "PATIENCE", 1)
    monkeypatch.setattr(overfitting, "EPOCHS", 12)
    # With this seed the validation loss rises once before it falls further.
    # Not cached, because the settings differ.
    states, best = overfitting.train.computed.__wrapped__(0.0, seed=2)
    rises = np.flatnonzero(np.diff([state.validation for state in states]) >= 0)
    assert best == states[rises[0]]


def test_overfitting_spoils_a_fifth_of_the_labels_but_no_test_label():
    overfitting = load("overfitting")
    parts = overfitting.data(seed=0)
    assert [len(x) for x, _ in parts] == [400, 500, 897]
    images, labels = overfitting.load_digits(return_X_y=True)
    right = dict(zip(map(bytes, (images / 16).astype("float32")), labels, strict=True))
    assert len(right) == len(images)  # all images are distinct
    wrong = [
        np.mean([right[bytes(a)] != b.argmax() for a, b in zip(*part, strict=True)]) for part in parts
    ]
    assert wrong == pytest.approx([0.18, 0.18, 0], abs=0.04)
    assert wrong[2] == 0
