"""The digits script does what it documents: it runs as a command without a display, its gradients are
correct, its data are standardized, every optimizer reaches 97 %, a deep network trains at a large learning
rate only with BatchNorm, and a run can be repeated bit for bit. The effect of each option is tested in
test_digits_options.py, interruption and resuming in test_digits_resume.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt

for package in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(package, reason=f"the examples need {package}: pip install '.[demo]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import comparison  # noqa: E402
import digits  # noqa: E402
import network  # noqa: E402
import training  # noqa: E402
from settings import OPTIMIZERS, Settings  # noqa: E402

ROW = re.compile(r"^ (\w+) +lr [\d.]+ +(\d+) +([\d.]+) +([\d.]+%) +[\d.]+ ms +[\d.]+ µs", re.MULTILINE)


BOTH = pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True}, {"dropout": 0.3}, {"layers": 2, "batch_norm": True, "dropout": 0.3}],
    ids=lambda options: "-".join(options) or "plain",
)


def train(xp=np, **options):
    settings = Settings(**options)
    run = training.Training(xp, training.load_data(xp, settings), settings)
    assert run.run()
    return run


def pixels(picture, color):
    """Count the pixels that have the color of one of matplotlib's lines."""
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    shades = imread(picture).reshape(-1, 4)[:, :3]
    return (abs(shades - to_rgb(color)) < 0.5 / 255).all(axis=1).sum()


# -- One run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run the same short command twice; for each run, return what it printed and its picture."""

    def run(picture):
        options = ["--optimizer", "Nesterov", "--epochs", "2", "--seed", "3", "--early-stopping", "1"]
        options += ["--batch-norm", "--dropout", "0.1", "--layers", "2", "--ema", "0.9"]
        done = subprocess.run(
            [sys.executable, EXAMPLES / "digits.py", *options, "--picture", picture],
            env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.replace(str(picture), "FILE"), picture

    folder = tmp_path_factory.mktemp("digits")
    return [run(folder / f"{i}.png") for i in range(2)]


def test_command_prints_the_result_of_a_run(runs):
    same = train(
        **{"optimizer": "Nesterov", "epochs": 2, "seed": 3, "early_stopping": 1, "ema": 0.9},
        **{"batch_norm": True, "dropout": 0.1, "layers": 2},
    )
    losses = [f"{losses[-1]:.6f}" for losses in same.history.values()]
    row = re.search(r"^ Nesterov +2 +([\d.]+) +([\d.]+) +([\d.]+%) +0.0%", runs[0][0], re.MULTILINE)
    assert list(row.groups()) == [*losses, f"{same.accuracy('test'):.2%}"]
    assert "The parameters are those of epoch 2." in runs[0][0]


def test_command_draws_both_losses(runs):
    assert [pixels(runs[0][1], f"C{i}") > 200 for i in range(3)] == [True, True, False]


def test_command_repeats_itself_bit_for_bit(runs):
    (first, first_picture), (second, second_picture) = runs
    assert first == second
    assert first_picture.read_bytes() == second_picture.read_bytes()


# -- The comparison --------------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch, tmp_path, capsys):
    """Return a function that runs the comparison with given results of the deep network, and returns what it
    prints and its picture."""
    picture = tmp_path / "curves.png"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(comparison, "LEARNING_RATES", (0.5, comparison.LARGE_LR))

    def run(*options, deep=(0.1, 0.98)):
        accuracies = {False: [0.96, deep[0]], True: [0.95, deep[1]]}
        monkeypatch.setattr(comparison, "train_deep", lambda *_: accuracies)
        digits.main(["--picture", str(picture), *options])
        return capsys.readouterr().out, picture

    return run


def test_comparison_shows_every_optimizer_and_the_deep_network_by_rate(compared):
    out, picture = compared("--epochs", "1")
    assert [(name, epochs) for name, epochs, *_ in ROW.findall(out)] == [
        (name, "1") for name in OPTIMIZERS
    ]
    assert re.search(r"without BatchNorm +96.0% +10.0% *\n with BatchNorm +95.0% +98.0%", out)
    assert min(pixels(picture, color) for color in ("C7", "C9")) > 200
    _, picture = compared("--epochs", "2")  # the curve of one epoch is a point
    assert all(pixels(picture, f"C{i}") > 200 for i in range(7))


def test_comparison_fails_below_a_goal(compared, monkeypatch):
    monkeypatch.setattr(comparison, "OPTIMIZERS", ["Adam"])
    for deep, says in (
        ((0.1, 0.96), "^below 97% on the test set: deep, lr 2 with BatchNorm$"),
        ((0.8, 0.98), r"^deep, lr 2 also trains without BatchNorm: 80\.0%$"),
    ):
        with pytest.raises(SystemExit, match=says):
            compared("--epochs", "1", deep=deep)


def test_optimizers_have_a_goal_with_default_settings_only():
    low, deep = {"SGD": 0.98, "Adam": 0.969}, {False: [0.1] * 6, True: [0.98] * 6}
    ours = Settings()
    assert comparison.failed_goals(ours, low, deep) == ["below 97% on the test set: Adam"]
    assert comparison.failed_goals(replace(ours, seed=3), low, deep) != []
    for other in (
        {"epochs": 2},
        {"batch_norm": True},
        {"dropout": 0.2},
        {"validate": True},
        {"l1": 0.1},
    ):
        assert comparison.failed_goals(replace(ours, **other), low, deep) == []
    assert comparison.failed_goals(ours, {"SGD": 0.97}, deep) == []


# -- Rejected options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--dropout", "1"], "a number >= 0 and < 1"),
        (["--dropout", "-0.1"], "a number >= 0 and < 1"),
        (["--ema", "1"], "a number >= 0 and < 1"),
        (["--lr", "nan"], "a number >= 0"),
        (["--l1", "-0.1"], "a number >= 0"),
        (["--clip-norm", "x"], "a number >= 0"),
        (["--layers", "0"], "an integer >= 1"),
        (["--early-stopping", "0"], "an integer >= 1"),
        (["--epochs", "2.5"], "an integer >= 1"),
        (["--augment", "-1"], "an integer >= 0"),
        (["--seed", "-1"], f"an integer >= 0 and < {2**64}"),
    ],
)
def test_option_out_of_range_is_rejected(option, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        digits.main(option)
    says = f"argument {option[0]}: expected {expected}, got '{option[1]}'\n"
    assert (ended.value.code, capsys.readouterr().err.endswith(says)) == (2, True)


RUN = ["--optimizer", "Adam", "--epochs", "1"]
NO_RUN = [
    (["--optimizer", "Adan"], "argument --optimizer: invalid choice: 'Adan'"),
    (["--schedule", "sine"], "argument --schedule: invalid choice: 'sine'"),
    (["--batch-size", "10000"], "digits.py: batch_size is 10000, but there are 6735 samples"),
    (
        ["--batch-size", "1", "--batch-norm"],
        "digits.py: batch_size is 1, but batch_norm needs 2 or more",
    ),
    (["--picture", "/none/a.png"], "argument --picture: cannot draw to '/none/a.png': the folder '/no"),
    (["--picture", "a.txt"], "cannot draw to 'a.txt': the file name must end in one of "),
    (["--picture", "a.pgf"], "cannot draw to 'a.pgf': the file name must end in one of "),
    (["--picture", "a"], "cannot draw to 'a': the file name must end in one of "),
    (["--picture", "/"], "cannot draw to '/': it is a folder"),
]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *NO_RUN,
        *(([*RUN, *options], says) for options, says in NO_RUN),
        (["--checkpoint", "run.npz"], "--checkpoint requires --optimizer: it saves a single run"),
        (["--checkpoint", ""], "argument --checkpoint: the path is empty"),
        ([*RUN, "--checkpoint", ""], "argument --checkpoint: the path is empty"),
        (
            [*RUN, "--picture", "run.png", "--checkpoint", "./run.png"],
            "--checkpoint and --picture are the same file: run.png",
        ),
    ],
)
def test_inconsistent_options_are_rejected_before_training(options, says, capsys, monkeypatch):
    monkeypatch.setattr(training.Training, "run", lambda *_, **__: pytest.fail("it is trained"))
    with pytest.raises(SystemExit) as ended:
        digits.main(options)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize(
    ("cupy", "says"),
    [
        (None, "--device cuda needs CuPy: pip install"),  # the import fails
        (SimpleNamespace(is_available=lambda: False), "--device cuda needs a CUDA device"),
        (
            SimpleNamespace(is_available=lambda: True, zeros=lambda *_, **__: object()),
            "--device cuda needs a fastopt that accepts CuPy arrays: params[0] has type object",
        ),
    ],
)
def test_missing_cuda_is_reported_in_one_sentence(monkeypatch, cupy, says, capsys):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for options in ([], ["--optimizer", "Adam"]):
        with pytest.raises(SystemExit) as ended:
            digits.main(["--device", "cuda", *options])
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"digits.py: {says}")


# -- Training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reaches_the_goal(name):
    assert train(optimizer=name).accuracy("test") >= comparison.GOAL == 0.97


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_repeats_itself_bit_for_bit(name):
    options = {"optimizer": name, "epochs": 1, "batch_norm": True, "dropout": 0.2}
    first, second, other = (train(**options, seed=seed).history for seed in (5, 5, 6))
    assert first == second != other


@pytest.mark.parametrize("seed", range(5))
def test_deep_network_trains_at_a_large_learning_rate_with_batch_norm_only(seed, monkeypatch):
    monkeypatch.setattr(comparison, "LEARNING_RATES", (comparison.LARGE_LR,))
    data = training.load_data(np, Settings(seed=seed))
    deep = comparison.train_deep(np, data, seed, "test")
    assert deep[True][0] >= comparison.GOAL
    assert deep[False][0] < comparison.UNTRAINED == 0.5


@BOTH
def test_every_kind_of_network_learns(options):
    assert train(epochs=5, **options).accuracy("test") > 0.93


def test_nesterov_evaluates_gradients_at_the_lookahead_points(monkeypatch):
    given, used = [], []
    lookahead, loss_and_grads = fastopt.Nesterov.lookahead, training.loss_and_grads
    monkeypatch.setattr(
        fastopt.Nesterov, "lookahead", lambda opt: given.append(lookahead(opt)) or given[-1]
    )
    monkeypatch.setattr(
        training, "loss_and_grads", lambda n, p, x, y: used.append(p) or loss_and_grads(n, p, x, y)
    )
    assert train(optimizer="Nesterov", epochs=1).opt.step_count == len(used)
    assert all(a is b for a, b in zip(given, used, strict=True))


def test_array_library_is_used_for_creation_only():
    only = SimpleNamespace(asarray=np.asarray, zeros=np.zeros)
    options = {"optimizer": "Nesterov", "epochs": 1, "batch_norm": True, "dropout": 0.2}
    options |= {"ema": 0.9, "early_stopping": 1}
    assert train(only, **options).history == train(**options).history


# -- Data ------------------------------------------------------------------------------------------------


def load_data(**options):
    return training.load_data(np, Settings(**options))


def rows(x):
    return {row.tobytes() for row in x}


def test_training_part_is_standardized_and_excludes_held_out_parts():
    parts = load_data(validate=True)
    assert {a.dtype for part in parts.values() for a in part} == {np.dtype("float32")}
    x, y = parts.pop("training")
    # Up to the rounding to float32; fitted with the test part, it would be 0.01.
    assert abs(x.mean(axis=0, dtype=np.float64)).max() < 1e-6
    assert abs(x.std(axis=0, dtype=np.float64) - 1).max() < 1e-6
    for x_out, y_out in parts.values():
        assert not rows(x) & rows(x_out)
        assert abs(y.mean(axis=0) - y_out.mean(axis=0)).max() < 0.003  # stratified: one image in 337


@pytest.fixture
def plain(monkeypatch):
    """Disable standardization, so that an image is the same in every split."""
    same = SimpleNamespace(transform=lambda x: x)
    monkeypatch.setattr(fastopt.data, "Standardizer", lambda: SimpleNamespace(fit=lambda x: same))


@pytest.mark.parametrize("option", [{"validate": True}, {"early_stopping": 3}, {"schedule": "plateau"}])
def test_validation_digits_come_from_the_training_digits(option, plain):
    whole, held = ({name: rows(x) for name, (x, _) in load_data(**o).items()} for o in ({}, option))
    assert whole.keys() == {"training", "test"}
    assert held["test"] == whole["test"]
    assert held["training"] | held["validation"] <= load_all()
    assert not held["training"] & held["validation"]
    assert not (held["training"] | held["validation"]) & held["test"]
    assert len(held["validation"]) == 337


def load_all():
    """Return every digit, and every digit shifted by up to a pixel."""
    images, _ = training.load_digits(return_X_y=True)
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    moved = [padded[:, i : i + 8, j : j + 8].reshape(-1, 64) for i in range(3) for j in range(3)]
    return rows(np.concatenate(moved).astype(np.float32))


def test_pixel_that_never_changes_becomes_zero(monkeypatch):
    images, labels = training.load_digits(return_X_y=True)
    images.reshape(-1, 8, 8)[:, :, :2] = (
        0  # two columns, so that the left edge is also blank in shifted copies
    )
    monkeypatch.setattr(training, "load_digits", lambda return_X_y: (images, labels))
    for x, _ in load_data().values():
        assert np.isfinite(x).all()
        assert not x[:, ::8].any()


def test_copies_are_moved_by_up_to_a_pixel_with_their_labels(plain):
    x, y = load_data(augment=4)["training"]
    alone, labels = load_data(augment=0)["training"]
    n = len(alone)
    assert len(x) == len(y) == 5 * n
    np.testing.assert_array_equal(x[:n], alone)
    np.testing.assert_array_equal(y, np.tile(labels, (5, 1)))
    padded = np.pad(alone.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    moved = np.array(
        [padded[:, i : i + 8, j : j + 8].reshape(-1, 64) for i in range(3) for j in range(3)]
    )
    for copy in x[n:].reshape(4, n, 64):
        found = (moved == copy).all(axis=2)
        assert found.any(axis=0).all()
        # All nine shifts are equally frequent, except for images that are the same in two of them.
        assert (abs(found.mean(axis=1) - 1 / 9) < 0.05).all()


# -- Network ---------------------------------------------------------------------------------------------


def small_network(batch_size=7, **options):
    """Return a network from 6 inputs to 4 classes, random parameters for it in float64, and a batch."""
    rng = np.random.default_rng(0)
    layers = network.make_network(np, 6, 4, Settings(hidden=5, **options))
    params = {
        name: rng.standard_normal(p.shape) for name, p in network.learnable_params(layers).items()
    }
    return (
        layers,
        params,
        rng.standard_normal((batch_size, 6)),
        np.eye(4)[rng.integers(0, 4, batch_size)],
    )


def test_parameters_are_those_of_the_layers():
    def shapes(**options):
        made = network.learnable_params(network.make_network(np, 6, 4, Settings(hidden=5, **options)))
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
        network.learnable_params(network.make_network(np, 6, 4, Settings(layers=2, **options)))
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


def test_evaluation_uses_running_statistics_and_drops_nothing():
    layers, params, x, y = small_network(layers=2, batch_norm=True, dropout=0.5)
    norms = [layer for layer in layers if isinstance(layer, fastopt.BatchNorm)]
    for _ in range(100):
        network.loss_and_grads(layers, params, x, y)
    learned = [norm.running_mean.copy() for norm in norms]
    whole = network.forward(layers, params, x, training=False)
    # The logits of an image do not depend on the batch: a single image has no batch statistics.
    alone = [network.forward(layers, params, x[i : i + 1], training=False)[0] for i in range(len(x))]
    np.testing.assert_allclose(whole, alone, rtol=1e-12)
    assert all((norm.running_mean == mean).all() for norm, mean in zip(norms, learned, strict=True))
    hidden = x @ params["w0"]
    np.testing.assert_allclose(learned[0], hidden.mean(axis=0), rtol=1e-3)


def test_loss_survives_huge_logits():
    layers = network.make_network(np, 2, 2, Settings(hidden=2))
    params = {"w0": np.eye(2) * 1e4, "b0": np.zeros(2), "w2": np.eye(2), "b2": np.zeros(2)}
    loss, grads = network.loss_and_grads(layers, params, np.eye(2), np.eye(2)[::-1])
    assert loss == 1e4
    assert all(np.isfinite(g).all() for g in grads.values())


def test_evaluation_loss_uses_the_running_statistics():
    layers, params, x, y = small_network(batch_norm=True, dropout=0.5)
    for _ in range(3):
        network.loss_and_grads(layers, params, x, y)
    logits = network.forward(layers, params, x, training=False)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert network.loss(layers, params, x, y) == pytest.approx(-np.log(p[y == 1]).mean(), rel=1e-12)


def test_statistics_are_the_layers_own_arrays():
    layers, *_ = small_network(layers=2, batch_norm=True, dropout=0.5)
    found = network.statistics(layers)
    assert list(found) == ["running_mean1", "running_var1", "running_mean4", "running_var4"]
    assert found["running_var4"] is layers[4].running_var
