"""Each option of the digits script has its documented effect, and every command-line option reaches the run."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import fastopt

for package in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(package, reason=f"the examples need {package}: pip install '.[demo]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import digits  # noqa: E402
from network import loss  # noqa: E402
from settings import OPTIMIZERS, SCHEDULES, Settings  # noqa: E402
from training import Training, load_data  # noqa: E402

QUICK = {"augment": 0, "epochs": 10}


def begun(**options):
    settings = Settings(**{**QUICK, **options})
    return Training(np, load_data(np, settings), settings)


def train(**options):
    training = begun(**options)
    assert training.run()
    return training


def weights(training):
    return np.concatenate([w.ravel() for name, w in training.params.items() if name[0] == "w"])


def one_step(training):
    """Return the norm of the first step, over all parameters."""
    before = {name: array.copy() for name, array in training.params.items()}
    training.run(lambda: True)
    return fastopt.functional.global_norm(
        [array - before[name] for name, array in training.params.items()]
    )


# ---- the effect of each option ----


def test_optimizer():
    kinds = [type(begun(optimizer=name).opt) for name in OPTIMIZERS]
    assert kinds == [getattr(fastopt, name) for name in OPTIMIZERS]


def test_lr():
    for name, own in OPTIMIZERS.items():
        assert begun(optimizer=name).opt.lr == own["lr"]
    plain = {"optimizer": "SGD", "schedule": "constant"}
    far, near = (one_step(begun(lr=lr, **plain)) for lr in (0.5, 0.125))
    assert far == pytest.approx(4 * near, rel=1e-5)


def test_clip_norm():
    plain = {"optimizer": "SGD", "schedule": "constant", "lr": 0.5}
    assert one_step(begun(**plain)) > 0.1
    assert one_step(begun(**plain, clip_norm=0.01)) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_l1_makes_exact_zeros():
    without, with_l1 = ((weights(train(optimizer="SGD", l1=l1)) == 0).mean() for l1 in (None, 3e-3))
    assert without == 0
    assert with_l1 > 0.5


def test_l2_makes_small_weights_and_no_zeros():
    without, with_l2 = (weights(train(optimizer="SGD", l2=l2)) for l2 in (None, 1e-2))
    assert np.linalg.norm(with_l2) < np.linalg.norm(without) / 2
    assert (with_l2 != 0).all()


def test_weight_decay_shrinks_weights_by_lr_times_decay():
    """The gradient does not matter: that of a blank pixel's weights is zero."""
    blank = begun().data["training"][0].any(axis=0) == 0
    assert blank.any()
    training = begun(optimizer="Adam", schedule="constant", lr=0.01, weight_decay=0.5)
    before = training.params["w0"][blank]
    training.run(lambda: training.opt.step_count == 3)
    np.testing.assert_allclose(training.params["w0"][blank], before * 0.995**3, rtol=1e-5)


def test_ema_is_the_result_of_a_run_and_is_better_at_a_constant_rate():
    noisy = {"optimizer": "RMSprop", "schedule": "constant", "validate": True}
    last, average = train(**noisy), train(**noisy, ema=0.98)
    # The trajectory is the same: the average does not affect the training.
    assert average.history["training loss"] == last.history["training loss"]
    assert average.history["validation loss"][-1] < last.history["validation loss"][-1]
    for array, kept in zip(average.arrays.values(), average.ema.average, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_ema_includes_the_running_statistics_of_batch_norm():
    training = train(ema=0.9, batch_norm=True, epochs=1)
    assert {"running_mean1", "running_var1"} < training.arrays.keys()
    assert training.network[1].running_mean is training.arrays["running_mean1"]


@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "batch_norm": True, "optimizer": "Nesterov"}])
def test_early_stopping_ends_a_run_with_its_best_parameters(more):
    training = train(early_stopping=2, epochs=50, schedule="constant", **more)
    losses = training.history["validation loss"]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 50
    assert loss(training.network, training.params, *training.data["validation"]) == losses[best]
    assert losses[-1] != losses[best]


def test_early_stopping_of_a_run_that_diverges_at_once():
    with np.errstate(all="ignore"):
        training = train(optimizer="SGD", lr=1e30, early_stopping=2)
    assert training.batches.epoch == 2


def test_epochs_and_batch_size():
    for epochs, size in ((1, 32), (3, 32), (2, 100)):
        assert train(epochs=epochs, batch_size=size).opt.step_count == epochs * (1347 // size)


def test_layers_and_hidden():
    shapes = [p.shape for p in begun(layers=3, hidden=7).params.values()]
    assert shapes == [(64, 7), (7,), (7, 7), (7,), (7, 7), (7,), (7, 10), (10,)]


def test_batch_norm():
    training = train(batch_norm=True, epochs=2)
    assert abs(training.arrays["running_mean1"]).min() > 0
    assert {"gamma1", "beta1"} < training.params.keys()
    assert {"gamma1", "running_mean1"}.isdisjoint(begun().arrays)


def test_dropout_hinders_training():
    """The training loss stays well above that of a run without dropout, which approaches zero."""
    hindered, free = (train(dropout=p).history["training loss"][-1] for p in (0.5, 0.0))
    assert hindered > 3 * free


def test_augment_improves_test_accuracy_after_as_many_steps():
    plain, augmented = (
        [train(augment=n, epochs=50 // (1 + n), seed=seed).accuracy("test") for seed in range(2)]
        for n in (0, 4)
    )
    assert min(augmented) > max(plain)


def test_validate_holds_out_digits():
    assert "validation" not in begun().data
    assert train(validate=True, epochs=3).accuracy("validation") > 0.8


def test_seed_determines_weights_batches_and_shifts():
    one, same, other = (begun(seed=seed, augment=1, epochs=1) for seed in (1, 1, 2))
    assert (weights(one) == weights(same)).all()
    assert (weights(one) != weights(other)).all()
    assert (one.batches.order() == same.batches.order()).all()
    assert (one.batches.order() != other.batches.order()).any()
    x, same_x, other_x = (training.data["training"][0] for training in (one, same, other))
    assert (x == same_x).all()
    assert (x != other_x).any()


SHAPES = {  # of the learning rate over the steps
    "constant": lambda r: set(r) == {1.0},
    "step": lambda r: sorted(set(r)) == pytest.approx([0.01, 0.1, 1.0]),
    "exponential": lambda r: (
        r[-1] == pytest.approx(0.01, rel=0.05) and np.allclose(np.diff(np.log(r), 2), 0)
    ),
    "linear": lambda r: r[-1] < 0.01 and np.allclose(np.diff(r, 2), 0),
    "cosine": lambda r: r[-1] < 0.001 and all(a > b for a, b in pairwise(r)),
    "warmup": lambda r: r[0] == 0 and 0.05 < r.index(1.0) / len(r) < 0.15 and r[-1] < 0.001,
    "one-cycle": lambda r: r[0] < 0.05 and 0.2 < r.index(max(r)) / len(r) < 0.4 and r[-1] < 1e-4,
    "plateau": lambda r: sorted(set(r)) == [0.25, 0.5, 1.0] and r == sorted(r)[::-1],
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    training = begun(schedule=name, lr=1.0, optimizer="SGD", epochs=6)
    seen = []
    zero = {name: np.zeros_like(array) for name, array in training.params.items()}

    def step(*_):
        """Take a step that changes nothing, so that the validation loss stays the same."""
        training.opt.lr = training.learning_rate()
        seen.append(training.opt.lr)
        training.opt.step(zero)

    training.step = step
    training.run()
    assert max(seen) == pytest.approx(1.0, rel=1e-4)  # the peak of one-cycle is between two steps
    assert SHAPES[name](seen), seen


# ---- the command passes the options on ----

GIVEN = {
    "optimizer": "AdamW",
    "lr": 0.5,
    "schedule": "one-cycle",
    "clip_norm": 2.0,
    "l1": 1e-4,
    "l2": 1e-3,
    "weight_decay": 0.0,
    "ema": 0.5,
    "early_stopping": 7,
    "epochs": 3,
    "batch_size": 16,
    "layers": 2,
    "hidden": 5,
    "batch_norm": True,
    "dropout": 0.25,
    "augment": 0,
    "validate": True,
    "seed": 2**64 - 1,
    "device": "cpu",
}


def settings_of(options, monkeypatch):
    """Return the settings that the command derives from its options."""
    taken = []

    def stop(xp, data, settings):
        taken.append(settings)
        raise ValueError

    monkeypatch.setattr(digits, "Training", stop)
    with pytest.raises(SystemExit):
        digits.main(options)
    return taken[0]


def test_every_option_reaches_the_run(monkeypatch):
    assert GIVEN.keys() == {f.name for f in fields(Settings)}
    options = []
    for name, value in GIVEN.items():
        options += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
    assert asdict(settings_of(options, monkeypatch)) == GIVEN
    changed = {k for k, v in GIVEN.items() if v != getattr(Settings(), k)}
    assert changed == GIVEN.keys() - {"device"}
    assert settings_of([], monkeypatch) == Settings()


def test_hyper_parameters_default_to_those_of_the_optimizer():
    assert Settings(optimizer="AdamW").hyper == OPTIMIZERS["AdamW"]
    assert Settings(optimizer="Momentum", clip_norm=3.0).hyper == {"lr": 0.08, "clip_norm": 3.0}
    given = Settings(**GIVEN).hyper
    assert given == {k: GIVEN[k] for k in ("lr", "clip_norm", "l1", "l2", "weight_decay")} | {
        "l1_mode": "proximal"
    }
