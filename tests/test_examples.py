"""The examples do what they say: the digits script runs as a command without a screen, its gradients are
right, its data are standardised, every optimizer reaches 97 %, a deep network bears a large rate with BatchNorm
and not without, and a run can be repeated bit for bit."""

from __future__ import annotations

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

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import digits  # noqa: E402
import network  # noqa: E402

ROW = re.compile(r"^ (\w+) +lr [\d.]+ +(\d+) +([\d.]+) +([\d.]+%) +[\d.]+ ms +[\d.]+ µs", re.MULTILINE)


BOTH = pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True}, {"dropout": 0.3}, {"layers": 2, "batch_norm": True, "dropout": 0.3}],
    ids=lambda options: "-".join(options) or "plain",
)


def settings(**options):
    return SimpleNamespace(**{**digits.SMALL, "seed": 0, **options})


def train(name, xp=np, **options):
    return digits.train(name, digits.OPTIMIZERS[name], xp, digits.load_data(xp), settings(**options))


# -- The command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same short command, twice: what it printed, and its picture."""

    def run(picture):
        options = ["--optimizer", "Nesterov", "--optimizer", "Adam", "--epochs", "2", "--seed", "3"]
        options += ["--batch-norm", "--dropout", "0.1", "--layers", "2", "--no-deep"]
        done = subprocess.run(
            [sys.executable, EXAMPLES / "digits.py", *options, "--picture", picture],
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


def pixels(picture, color):
    """How many have the colour of one of matplotlib's lines."""
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    shades = imread(picture).reshape(-1, 4)[:, :3]
    return (abs(shades - to_rgb(color)) < 0.5 / 255).all(axis=1).sum()


def test_command_draws_a_curve_for_each_optimizer(runs):
    assert [pixels(runs[0][1], f"C{i}") > 400 for i in range(7)] == [i in (2, 5) for i in range(7)]


def test_command_repeats_itself_bit_for_bit(runs):
    (first, first_picture), (second, second_picture) = runs
    assert ROW.findall(first) == ROW.findall(second) != []
    assert first_picture.read_bytes() == second_picture.read_bytes()


def test_command_fails_below_the_goal_at_its_own_settings_only(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "GOAL", 1.01)
    monkeypatch.setitem(digits.SMALL, "epochs", 1)
    options = ["--optimizer", "SGD", "--no-deep", "--picture", str(tmp_path / "curves.png")]
    with pytest.raises(SystemExit, match="below 101% on the test set: SGD"):
        digits.main(options)
    for other in (["--epochs", "2"], ["--batch-norm"], ["--dropout", "0.2"], ["--validate"]):
        digits.main([*options, *other])


def test_command_tells_of_the_deep_network_by_rate(monkeypatch, tmp_path, capsys):
    """Its accuracies are in the table, its two lines in the picture, and both its promises are kept."""
    picture = tmp_path / "curves.png"
    options = ["--optimizer", "SGD", "--epochs", "1", "--picture", str(picture)]

    def deep(without, with_norm):
        read = {False: [0.96, without], True: [0.95, with_norm]}
        monkeypatch.setattr(digits, "RATES", (0.5, digits.LARGE_RATE))
        monkeypatch.setattr(digits, "train_deep", lambda *_: read)
        digits.main(options)

    deep(0.1, 0.98)
    out = capsys.readouterr().out
    assert re.search(r"without BatchNorm +96.0% +10.0% *\n with BatchNorm +95.0% +98.0%", out)
    assert min(pixels(picture, "C7"), pixels(picture, "C9")) > 200
    with pytest.raises(SystemExit, match="below 97% on the test set: deep, lr 2 with BatchNorm"):
        deep(0.1, 0.96)
    with pytest.raises(SystemExit, match=r"deep, lr 2 trains without BatchNorm too: 80\.0%"):
        deep(0.8, 0.98)


@pytest.mark.parametrize(
    "option", [["--dropout", "1"], ["--dropout", "-0.1"], ["--layers", "0"], ["--seed", "-1"]]
)
def test_option_out_of_range_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        digits.main(option)
    assert f"argument {option[0]}: invalid" in capsys.readouterr().err


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
    options = {"epochs": 1, "batch_norm": True, "dropout": 0.2}
    first, second, other = (train(name, **options, seed=seed) for seed in (5, 5, 6))
    assert (first.losses, first.accuracy) == (second.losses, second.accuracy)
    assert first.losses != other.losses


@pytest.mark.parametrize("seed", range(5))
def test_deep_network_bears_the_large_rate_with_batch_norm_only(seed, monkeypatch):
    monkeypatch.setattr(digits, "RATES", (digits.LARGE_RATE,))
    deep = digits.train_deep(np, digits.load_data(np), settings(seed=seed))
    assert deep[True][0] >= digits.GOAL
    assert deep[False][0] < digits.UNTRAINED == 0.5


@BOTH
def test_every_kind_of_network_learns(options):
    assert train("Adam", epochs=5, **options).accuracy > 0.93


def test_nesterov_takes_its_gradients_at_the_look_ahead_points(monkeypatch):
    given, used = [], []
    lookahead, loss_and_grads = fastopt.Nesterov.lookahead, digits.loss_and_grads
    monkeypatch.setattr(
        fastopt.Nesterov, "lookahead", lambda opt: given.append(lookahead(opt)) or given[-1]
    )
    monkeypatch.setattr(
        digits, "loss_and_grads", lambda n, p, x, y: used.append(p) or loss_and_grads(n, p, x, y)
    )
    assert train("Nesterov", epochs=1).steps == len(used)
    assert all(a is b for a, b in zip(given, used, strict=True))


def test_array_library_is_asked_for_nothing_but_creation():
    only = SimpleNamespace(asarray=np.asarray, zeros=np.zeros)
    options = {"epochs": 1, "batch_norm": True, "dropout": 0.2}
    assert train("Nesterov", only, **options).losses == train("Nesterov", **options).losses


# -- Data ------------------------------------------------------------------------------------------------


def test_training_part_is_standardised_and_held_out_part_is_not_in_it():
    (x, y), (x_test, y_test) = digits.load_data(np)
    assert {a.dtype for a in (x, y, x_test, y_test)} == {np.dtype("float32")}
    assert (
        abs(x.mean(axis=0, dtype=np.float64)).max() < 1e-6
    )  # rounding to float32; with the test part in it, 0.01
    assert abs(x.std(axis=0, dtype=np.float64) - 1).max() < 1e-6
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in x_test}
    assert abs(y.mean(axis=0) - y_test.mean(axis=0)).max() < 0.002  # stratified: one image in 450


def test_validation_takes_no_look_at_the_test_digits(monkeypatch):
    plain = SimpleNamespace(transform=lambda x: x)  # so that an image is the same in every split
    monkeypatch.setattr(fastopt.data, "Standardizer", lambda: SimpleNamespace(fit=lambda x: plain))
    (train, test), (part, held_out) = (
        [{row.tobytes() for row in x} for x, _ in digits.load_data(np, validate)]
        for validate in (False, True)
    )
    assert part | held_out <= train
    assert not part & held_out
    assert not (part | held_out) & test
    assert len(held_out) == 337


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


# -- Network ---------------------------------------------------------------------------------------------


def small_network(batch_size=7, **options):
    """A network from 6 inputs to 4 classes in float64, its parameters, drawn, and a batch for it."""
    rng = np.random.default_rng(0)
    layers = network.make_network(np, 6, 4, settings(hidden=5, **options))
    params = {name: rng.standard_normal(p.shape) for name, p in network.learnt(layers).items()}
    return (
        layers,
        params,
        rng.standard_normal((batch_size, 6)),
        np.eye(4)[rng.integers(0, 4, batch_size)],
    )


def test_parameters_are_those_of_the_layers():
    def shapes(**options):
        made = network.learnt(network.make_network(np, 6, 4, settings(hidden=5, **options)))
        assert {p.dtype for p in made.values()} == {np.dtype("float32")}
        return {name: p.shape for name, p in made.items()}

    assert shapes(dropout=0.5) == {"w0": (6, 5), "b0": (5,), "w3": (5, 4), "b3": (4,)}
    assert shapes(layers=2, batch_norm=True) == {
        **{"w0": (6, 5), "gamma1": (5,), "beta1": (5,)},
        **{"w2": (5, 5), "gamma3": (5,), "beta3": (5,)},
        **{"w4": (5, 4), "b4": (4,)},
    }


def test_same_seed_gives_the_same_weights_with_and_without_the_layers_between():
    plain, other = (
        network.learnt(network.make_network(np, 6, 4, settings(layers=2, **options)))
        for options in ({}, {"batch_norm": True, "dropout": 0.5})
    )
    weights = [[p for name, p in made.items() if name[0] == "w"] for made in (plain, other)]
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


@BOTH
def test_backward_agrees_with_finite_differences(options):
    layers, params, x, y = small_network(**options)
    dropouts = [layer for layer in layers if isinstance(layer, fastopt.Dropout)]
    start = [layer.generator.state_dict() for layer in dropouts]

    def loss_and_grads():
        for layer, state in zip(dropouts, start, strict=True):
            layer.generator.load_state_dict(state)  # the same masks every time
        return network.loss_and_grads(layers, params, x, y)

    _, grads = loss_and_grads()
    assert grads.keys() == params.keys()
    h = 1e-6  # rounding, 1e-16 / h, and curvature, h * h, are both far below the limit
    for name, param in params.items():
        assert grads[name].any()
        for i in np.ndindex(param.shape):
            kept = param[i]
            param[i] = kept + h
            above, _ = loss_and_grads()
            param[i] = kept - h
            below, _ = loss_and_grads()
            param[i] = kept
            assert abs(grads[name][i] - (above - below) / (2 * h)) < 1e-8, (name, i)


def test_evaluation_takes_running_statistics_and_drops_nothing():
    layers, params, x, y = small_network(layers=2, batch_norm=True, dropout=0.5)
    norms = [layer for layer in layers if isinstance(layer, fastopt.BatchNorm)]
    for _ in range(100):
        network.loss_and_grads(layers, params, x, y)
    learnt = [norm.running_mean.copy() for norm in norms]
    whole = network.forward(layers, params, x, training=False)
    # An image is read the same alone, which has no statistics of its own, and among others.
    alone = [network.forward(layers, params, x[i : i + 1], training=False)[0] for i in range(len(x))]
    np.testing.assert_allclose(whole, alone, rtol=1e-12)
    assert all((norm.running_mean == mean).all() for norm, mean in zip(norms, learnt, strict=True))
    hidden = x @ params["w0"]
    np.testing.assert_allclose(learnt[0], hidden.mean(axis=0), rtol=1e-3)


def test_loss_survives_huge_logits():
    layers = network.make_network(np, 2, 2, settings(hidden=2))
    params = {"w0": np.eye(2) * 1e4, "b0": np.zeros(2), "w2": np.eye(2), "b2": np.zeros(2)}
    loss, grads = network.loss_and_grads(layers, params, np.eye(2), np.eye(2)[::-1])
    assert loss == 1e4
    assert all(np.isfinite(g).all() for g in grads.values())
