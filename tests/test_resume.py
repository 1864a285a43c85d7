"""A run that is interrupted in an epoch, saved to a file or pickled, and resumed with new objects ends with the
same bits: batches, augmentation, dropout, schedule, optimizer, average and early stopping together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastopt
from fastopt import schedules
from fastopt.data import augment, minibatches

EPOCHS = 4
X = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 6)).astype(np.float32)
Y = X @ np.arange(6, dtype=np.float32)[:, None]


class Run:
    """A linear model with dropout on noisy inputs, and everything needed to train it."""

    def __init__(self):
        self.generator = fastopt.Generator(3)
        self.params = {
            "w": fastopt.init.he_normal((6, 1), generator=self.generator),
            "b": np.zeros(1, np.float32),
        }
        self.scale = fastopt.data.Standardizer().fit(X)
        self.batches = minibatches(X, Y, np.arange(50), batch_size=8, seed=1)
        self.dropout = fastopt.Dropout(0.2, generator=self.generator)
        self.opt = fastopt.Adam(self.params, clip_norm=5.0)
        self.schedule = schedules.Warmup(5, schedules.Cosine(0.1, steps=20))
        # min_delta is never reached, so the learning rate is halved after every epoch except the first.
        self.plateau = schedules.ReduceOnPlateau(1.0, factor=0.5, patience=1, min_delta=1e6)
        self.ema = fastopt.EMA(self.params, decay=0.9)
        self.stopper = fastopt.EarlyStopping(patience=3)

    def parts(self):
        names = ("generator", "scale", "batches", "opt", "plateau", "ema", "stopper")
        return {name: getattr(self, name) for name in names}

    def step(self, x, y, i):
        draws = augment.Draws(i, seed=2, epoch=self.batches.epoch)
        x = self.dropout(augment.noise(self.scale.transform(x), draws))
        error = (x @ self.params["w"] + self.params["b"] - y) / len(x)
        self.opt.lr = self.schedule(self.opt.step_count) * self.plateau.lr
        self.opt.step({"w": x.T @ error, "b": error.sum(0)})
        self.ema.update()

    def train(self, steps=None):
        """Train to the end, or for ``steps`` steps."""
        for _ in range(self.batches.epoch, EPOCHS):
            for batch in self.batches:
                self.step(*batch)
                if self.opt.step_count == steps:
                    return
            with self.ema.applied():
                x = self.scale.transform(X)
                loss = np.square(x @ self.params["w"] + self.params["b"] - Y).mean()
            self.plateau.update(loss)
            self.stopper.update(loss, self.params)

    def state(self):
        return {
            "params": self.params,
            **{name: part.state_dict() for name, part in self.parts().items()},
        }

    def image(self):
        return image(self.state())

    def load(self, state, but=None):
        for name, value in state["params"].items():
            self.params[name][...] = value
        for name, part in self.parts().items():
            if name != but:
                part.load_state_dict(state[name])


def save_and_load(state, folder):
    fastopt.checkpoint.save(folder / "run.npz", state)
    return fastopt.checkpoint.load(folder / "run.npz")


CARRIERS = {"a file": save_and_load, "a pickle": lambda state, _: pickle.loads(pickle.dumps(state))}


def image(state):
    """Return an object that is equal for bitwise identical states."""
    if isinstance(state, dict):
        return {name: image(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [image(value) for value in state]
    return (state.dtype, state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


@pytest.fixture(scope="module")
def uninterrupted():
    run = Run()
    run.train()
    return run.image()


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize("steps", [1, 6, 7, 8, 20, 28])
def test_resumed_run_is_bitwise_identical(steps, carry, uninterrupted, tmp_path):
    interrupted, resumed = Run(), Run()
    interrupted.train(steps)
    resumed.load(carry(interrupted.state(), tmp_path))
    resumed.train()
    assert resumed.image() == uninterrupted


@pytest.mark.parametrize("part", ["generator", "batches", "opt", "plateau", "ema", "stopper"])
def test_every_part_of_the_state_is_needed(part, uninterrupted):
    interrupted, resumed = Run(), Run()
    interrupted.train(20)
    resumed.load(pickle.loads(pickle.dumps(interrupted.state())), but=part)
    resumed.train()
    assert resumed.image() != uninterrupted
