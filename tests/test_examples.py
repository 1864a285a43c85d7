"""The examples do what they say: the digits script runs as a command without a screen, its gradients are
right, its data are standardised, every optimizer reaches 97 %, and a run can be repeated bit for bit."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt

for package in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(package, reason=f"the examples need {package}: pip install '.[demo]'")

DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
ROW = re.compile(r"^ (\w+) +lr [\d.]+ +(\d+) +([\d.]+) +([\d.]+%) +[\d.]+ ms +[\d.]+ µs", re.MULTILINE)


def load_script():
    spec = importlib.util.spec_from_file_location("digits", DIGITS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


digits = load_script()


def train(name, xp=np, **options):
    args = {
        "epochs": digits.EPOCHS,
        "batch_size": digits.BATCH_SIZE,
        "hidden": digits.HIDDEN,
        "seed": 0,
    }
    return digits.train(name, xp, digits.load_data(xp), SimpleNamespace(**{**args, **options}))


# -- The command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same short command, twice: what it printed, and its picture."""

    def run(picture):
        options = ["--optimizer", "Nesterov", "--optimizer", "Adam", "--epochs", "2", "--seed", "3"]
        done = subprocess.run(
            [sys.executable, DIGITS, *options, "--picture", picture],
            env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, picture

    folder = tmp_path_factory.mktemp("digits")
    return [run(folder / f"{i}.png") for i in range(2)]


def test_command_prints_a_row_for_each_optimizer(runs):
    rows = ROW.findall(runs[0][0])
    assert [(name, epochs) for name, epochs, *_ in rows] == [("Nesterov", "2"), ("Adam", "2")]


def test_command_draws_a_curve_for_each_optimizer(runs):
    from matplotlib.image import imread

    shades = imread(runs[0][1]).reshape(-1, 4)[:, :3]
    for color in ((0x2C, 0xA0, 0x2C), (0x8C, 0x56, 0x4B)):  # matplotlib's C2 and C5
        assert (abs(255 * shades - color) < 0.5).all(axis=1).sum() > 500


def test_command_repeats_itself_bit_for_bit(runs):
    (first, first_picture), (second, second_picture) = runs
    assert ROW.findall(first) == ROW.findall(second) != []
    assert first_picture.read_bytes() == second_picture.read_bytes()


def test_command_fails_below_the_goal_at_its_own_settings_only(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "GOAL", 1.01)
    monkeypatch.setattr(digits, "EPOCHS", 1)
    options = ["--optimizer", "SGD", "--picture", str(tmp_path / "curves.png")]
    with pytest.raises(SystemExit, match="below 101% on the test set: SGD"):
        digits.main(options)
    digits.main([*options, "--epochs", "2"])


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, "--device cuda needs CuPy: pip install"),  # the import fails
        (SimpleNamespace(is_available=lambda: False), "--device cuda needs a CUDA device"),
    ],
)
def test_cuda_where_there_is_none_is_one_sentence(monkeypatch, cupy, message):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(SystemExit, match=message):
        digits.main(["--device", "cuda"])


# -- Training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", digits.OPTIMIZERS)
def test_every_optimizer_reaches_the_goal(name):
    assert train(name).accuracy >= digits.GOAL == 0.97


@pytest.mark.parametrize("name", digits.OPTIMIZERS)
def test_training_repeats_itself_bit_for_bit(name):
    first, second, other = (train(name, epochs=1, seed=seed) for seed in (5, 5, 6))
    assert (first.losses, first.accuracy) == (second.losses, second.accuracy)
    assert first.losses != other.losses


def test_nesterov_takes_its_gradients_at_the_look_ahead_points(monkeypatch):
    given, used = [], []
    lookahead, loss_and_grads = fastopt.Nesterov.lookahead, digits.loss_and_grads
    monkeypatch.setattr(
        fastopt.Nesterov, "lookahead", lambda opt: given.append(lookahead(opt)) or given[-1]
    )
    monkeypatch.setattr(
        digits, "loss_and_grads", lambda p, x, y: used.append(p) or loss_and_grads(p, x, y)
    )
    assert train("Nesterov", epochs=1).steps == len(used)
    assert all(a is b for a, b in zip(given, used, strict=True))


def test_array_library_is_asked_for_nothing_but_creation():
    only = SimpleNamespace(asarray=np.asarray, zeros=np.zeros)
    assert train("Nesterov", only, epochs=1).losses == train("Nesterov", epochs=1).losses


# -- Data and network ------------------------------------------------------------------------------------


def test_training_part_is_standardised_and_held_out_part_is_not_in_it():
    (x, y), (x_test, y_test) = digits.load_data(np)
    assert {a.dtype for a in (x, y, x_test, y_test)} == {np.dtype("float32")}
    assert (
        abs(x.mean(axis=0, dtype=np.float64)).max() < 1e-6
    )  # rounding to float32; with the test part in it, 0.01
    assert abs(x.std(axis=0, dtype=np.float64) - 1).max() < 1e-6
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in x_test}
    assert abs(y.mean(axis=0) - y_test.mean(axis=0)).max() < 0.002  # stratified: one image in 450


def test_pixel_that_never_changes_becomes_zero(monkeypatch):
    images, labels = digits.load_digits(return_X_y=True)
    images.reshape(-1, 8, 8)[:, :, :2] = 0  # the left edge stays blank when its neighbours are moved in
    monkeypatch.setattr(digits, "load_digits", lambda return_X_y: (images, labels))
    for x, _ in digits.load_data(np):
        assert np.isfinite(x).all()
        assert not x[:, ::8].any()


def test_shifts_move_each_image_by_one_pixel():
    image = np.zeros((1, 8, 8))
    image[0, 3, 5] = 1
    moved = digits.with_shifts(image.reshape(1, 64)).reshape(-1, 8, 8)
    assert [tuple(place) for place in np.argwhere(moved)[:, 1:]] == [
        (3, 5),
        (4, 5),
        (2, 5),
        (3, 6),
        (3, 4),
    ]


def test_he_initialisation_has_variance_two_over_inputs():
    params = digits.init_params(np, np.random.default_rng(0), (500, 400, 10))
    assert {name: p.shape for name, p in params.items()} == {
        "w1": (500, 400),
        "b1": (400,),
        "w2": (400, 10),
        "b2": (10,),
    }
    assert {p.dtype for p in params.values()} == {np.dtype("float32")}
    assert params["w1"].var() == pytest.approx(
        2 / 500, rel=0.02
    )  # 200,000 draws: 0.3 % is one deviation
    assert not params["b1"].any()


def test_backward_agrees_with_finite_differences():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 6)), np.eye(4)[rng.integers(0, 4, 7)]
    params = {
        name: rng.standard_normal(s)
        for name, s in {"w1": (6, 5), "b1": 5, "w2": (5, 4), "b2": 4}.items()
    }
    _, grads = digits.loss_and_grads(params, x, y)
    h = 1e-6  # rounding, 1e-16 / h, and curvature, h * h, are both far below the limit
    for name, param in params.items():
        for i in np.ndindex(param.shape):
            kept = param[i]
            param[i] = kept + h
            above, _ = digits.loss_and_grads(params, x, y)
            param[i] = kept - h
            below, _ = digits.loss_and_grads(params, x, y)
            param[i] = kept
            assert abs(grads[name][i] - (above - below) / (2 * h)) < 1e-8, (name, i)


def test_loss_survives_huge_logits():
    params = {"w1": np.eye(2) * 1e4, "b1": np.zeros(2), "w2": np.eye(2), "b2": np.zeros(2)}
    loss, grads = digits.loss_and_grads(params, np.eye(2), np.eye(2)[::-1])
    assert loss == 1e4
    assert all(np.isfinite(g).all() for g in grads.values())
