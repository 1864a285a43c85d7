"""One training run on the digits: the data, the training loop, and the state that a checkpoint must contain."""

import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from fastopt.data import augment
from network import accuracy, learnable_params, loss, loss_and_grads, make_network, statistics
from settings import SCHEDULES


def load_data(xp, settings):
    """Return ``{"training": (x, y), "test": (x, y)}``, and ``"validation"`` if ``settings.holds_out``.

    Images x (N, 64), standardized, and labels y (N, 10), one-hot, are float32 arrays of ``xp``. The split is
    the same in every run: a quarter for the test, and a quarter of the rest for validation.
    """
    images, labels = load_digits(return_X_y=True)
    split = partial(train_test_split, test_size=0.25, random_state=0)
    x, x_test, y, y_test = split(images, labels, stratify=labels)
    parts = {"test": (x_test, y_test)}
    if settings.holds_out:
        x, x_held, y, y_held = split(x, y, stratify=y)
        parts["validation"] = x_held, y_held
    parts["training"] = with_shifts(x, settings), np.tile(y, 1 + settings.augment)
    standardizer = fastopt.data.Standardizer().fit(parts["training"][0])
    return {
        name: [xp.asarray(a, dtype=np.float32) for a in (standardizer.transform(x), np.eye(10)[y])]
        for name, (x, y) in parts.items()
    }


def with_shifts(x, settings):
    """Return the images (N, 64) followed by copies of all of them, each shifted by up to a pixel:
    ((1 + augment) N, 64).

    The copies are made once and are the same in each epoch, so that an epoch costs only its steps.
    """
    images, index = x.reshape(-1, 1, 8, 8), np.arange(len(x))
    draws = [augment.Draws(index, seed=settings.seed, epoch=i) for i in range(settings.augment)]
    return np.concatenate([images, *(augment.crop(images, d, padding=1) for d in draws)]).reshape(
        -1, 64
    )


class Training:
    """A training run. ``state_dict`` may be called between any two steps. A new ``Training`` with the same
    settings that loads this state continues exactly (bit for bit) where the saved one stopped."""

    def __init__(self, xp, data, settings):
        if settings.batch_norm and settings.batch_size == 1:
            raise ValueError("batch_size is 1, but batch_norm needs 2 or more")
        self.xp, self.data, self.settings = xp, data, settings
        x, y = data["training"]
        generator = fastopt.Generator(settings.seed)
        self.network = make_network(xp, x.shape[1], y.shape[1], settings, generator)
        self.params = learnable_params(self.network)
        self.arrays = {**self.params, **statistics(self.network)}  # everything that evaluation needs
        self.opt = getattr(fastopt, settings.optimizer)(self.params, **settings.hyper)
        # drop_last, because the last batch might consist of one image.
        self.batches = fastopt.data.minibatches(
            x, y, batch_size=settings.batch_size, seed=settings.seed, drop_last=True
        )
        self.schedule = SCHEDULES[settings.schedule](self.opt.lr, settings.epochs * len(self.batches))
        self.plateau = self.stopper = self.ema = None
        if settings.schedule == "plateau":
            self.plateau = fastopt.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=2)
        if settings.early_stopping is not None:
            self.stopper = fastopt.EarlyStopping(settings.early_stopping)
        if settings.ema is not None:
            self.ema = fastopt.EMA(self.arrays, settings.ema)
        parts = {"optimizer": self.opt, "batches": self.batches, "generator": generator}
        parts |= {"plateau": self.plateau, "early stopping": self.stopper, "average": self.ema}
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.history = {"training loss": [], "validation loss": []}  # one value per epoch
        self.total = 0.0  # sum of the losses of this epoch so far
        self.seconds = 0.0  # spent in opt.step by this object; on a GPU, the time of queuing the work

    # -- The loop --------------------------------------------------------------------------------

    @property
    def done(self):
        stopped = self.stopper is not None and self.stopper.stopped
        return stopped or self.batches.epoch == self.settings.epochs

    def run(self, interrupted=lambda: False, epoch_done=lambda: None):
        """Train to the end, or until ``interrupted()`` is true after a step. Returns whether the end was
        reached."""
        while not self.done:
            for batch in self.batches:
                self.step(*batch)
                if interrupted():
                    return False
            self.end_epoch()
            epoch_done()
        if self.stopper is not None and self.stopper.best_update:
            self.stopper.restore(self.arrays)
        elif self.ema is not None:
            self.ema.copy_to()
        return True

    def step(self, x, y):
        # Nesterov's gradient is taken at the point to which momentum alone would move the parameters.
        point = self.opt.lookahead() if self.settings.optimizer == "Nesterov" else self.params
        value, grads = loss_and_grads(self.network, point, x, y)
        self.opt.lr = self.learning_rate()
        before = time.perf_counter()
        self.opt.step(grads)
        self.seconds += time.perf_counter() - before
        self.total += value
        if self.ema is not None:
            self.ema.update()

    def learning_rate(self):
        """Return the learning rate of the next step."""
        lr = self.schedule(self.opt.step_count)
        return lr if self.plateau is None else lr * self.plateau.lr

    def end_epoch(self):
        self.history["training loss"].append(float(self.total) / len(self.batches))
        self.total = 0.0
        if "validation" not in self.data:
            return
        with self.ema.applied() if self.ema is not None else nullcontext():
            value = float(loss(self.network, self.params, *self.data["validation"]))
            self.history["validation loss"].append(value)
            if self.stopper is not None:
                self.stopper.update(value, self.arrays)
        if self.plateau is not None:
            self.plateau.update(value)

    def accuracy(self, part):
        return accuracy(self.network, self.params, *self.data[part])

    # -- The checkpoint --------------------------------------------------------------------------

    def state_dict(self):
        return {
            "settings": asdict(self.settings),
            "arrays": self.arrays,
            "history": self.history,
            "total": float(self.total),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }

    def load_state_dict(self, state):
        """Load a state returned by ``state_dict``.

        Raises ``ValueError`` or ``TypeError`` if it is incomplete, of other settings, or not the state of a
        run.
        """
        mine = asdict(self.settings)
        if not isinstance(state, dict) or not isinstance(theirs := state.get("settings"), dict):
            raise ValueError("it is not a checkpoint of digits.py")
        if changed := [name for name in mine if theirs.get(name) != mine[name]]:
            pairs = (
                f"{name.replace('_', '-')} {theirs.get(name)}, not {mine[name]}" for name in changed
            )
            raise ValueError(f"it was started with {'; '.join(pairs)}")
        require(state, ["arrays", "history", "total", *self.parts])
        require(state["arrays"], self.arrays)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for name, array in self.arrays.items():
            array[...] = self.xp.asarray(state["arrays"][name])
        self.history, self.total = state["history"], state["total"]


def require(state, names):
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"it has no {', '.join(missing)}")
