"""The tables of docs/coming-from.md: both sides of a row, the other library's and fastopt's, give the same
numbers. The page's examples with torch work as described."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastopt

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
STEPS, CHANGE = 20, 10
LR = 0.1  # halved at CHANGE, which shows whether it is a factor in the velocity
LENGTHS = (3, 40)


def rows_of(page):
    """Yield each row: its library (the title of its section), its kind, and its two sides."""
    library = kind = ""
    for line in page.splitlines():
        if line.startswith("## "):
            library = line[3:]
        elif head := re.fullmatch(r"\| `([\w.]+)` \| `(fastopt[\w.]*)` \|", line):
            kind = KINDS[f"{head[1]} | {head[2]}"]
        elif library in LIBRARIES and (row := re.fullmatch(r"\| `(.+)` \| `(.+)` \|", line)):
            yield library, kind, *row.groups()


# The kind of a table, by its header row.
KINDS = {
    "torch.optim | fastopt": "optimizer",
    "keras.optimizers | fastopt": "optimizer",
    "optax | fastopt": "optimizer",
    "torch.optim.lr_scheduler | fastopt.schedules": "schedule",
    "keras.optimizers.schedules | fastopt.schedules": "schedule",
    "optax | fastopt.schedules": "schedule",
    "torch.nn | fastopt": "layer",
    "keras.layers | fastopt": "layer",
}


# ---- the libraries: each runs the left side of a row ----


class Torch:
    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="torch is not installed")

    def run(self, cell, start, gradients):
        torch = self.torch
        p = [torch.tensor(a, requires_grad=True) for a in start]
        utils = {
            name: getattr(torch.nn.utils, name) for name in ("clip_grad_norm_", "clip_grad_value_")
        }
        *before, made = cell.split("; ")
        opt = eval(made, vars(torch.optim), {"p": p, "lr": LR})
        for t, grads in enumerate(gradients):
            if t == CHANGE:
                opt.param_groups[0]["lr"] /= 2
            for tensor, g in zip(p, grads, strict=True):
                tensor.grad = torch.tensor(g)
            for call in before:
                eval(call, utils, {"p": p})
            opt.step()
        return [t.detach().numpy() for t in p]

    def rates(self, cell):
        torch = self.torch
        opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
        schedule = eval(cell, vars(torch.optim.lr_scheduler), {"opt": opt})
        for t in range(STEPS):
            yield opt.param_groups[0]["lr"]
            opt.step()
            if t + 1 < STEPS:
                schedule.step()

    def normalized(self, cell, batches):
        """Yield the outputs of all batches: the last one in evaluation, the others before it in training."""
        torch = self.torch
        layer = eval(cell, vars(torch.nn)).double()
        for x in batches[:-1]:
            yield layer(self._spatial(cell, x)).detach().numpy().reshape(x.shape)
        x = batches[-1]
        yield layer.eval()(self._spatial(cell, x)).detach().numpy().reshape(x.shape)

    def _spatial(self, cell, x):
        return self.torch.from_numpy(x.reshape(*x.shape, *[1, 1] * ("2d" in cell)))


@pytest.fixture(scope="module", autouse=True)
def restore_default_precision():
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)


def in_float64():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_enable_x64", True)
    return jax


class Keras:
    def __init__(self):
        os.environ.setdefault("KERAS_BACKEND", "jax")  # JAX can compute in float64
        in_float64()
        self.keras = pytest.importorskip("keras", reason="Keras is not installed")
        self.keras.config.set_floatx("float64")

    def run(self, cell, start, gradients):
        p = [self.keras.Variable(a, dtype="float64") for a in start]
        opt = eval(cell, vars(self.keras.optimizers), {"lr": LR})
        for t, grads in enumerate(gradients):
            if t == CHANGE:
                opt.learning_rate = opt.learning_rate / 2
            opt.apply(grads, p)
        return [np.asarray(v) for v in p]

    def rates(self, cell):
        schedule = eval(cell, vars(self.keras.optimizers.schedules))
        return (float(schedule(t)) for t in range(STEPS))

    def normalized(self, cell, batches):
        layer = eval(cell, vars(self.keras.layers))
        for i, x in enumerate(batches):
            yield np.asarray(layer(x, training=i + 1 < len(batches)))


class Optax:
    def __init__(self):
        self.jax = in_float64()
        self.optax = pytest.importorskip("optax", reason="optax is not installed")

    def run(self, cell, start, gradients):
        p = [self.jax.numpy.asarray(a) for a in start]
        opt = eval(cell, vars(self.optax), {"lr": self._rate})
        state = opt.init(p)
        update = self.jax.jit(opt.update)
        for grads in gradients:
            updates, state = update(grads, state, p)
            p = self.optax.apply_updates(p, updates)
        return [np.asarray(a) for a in p]

    def _rate(self, step):
        return self.jax.numpy.where(step < CHANGE, LR, LR / 2)

    def rates(self, cell):
        schedule = eval(cell, vars(self.optax))
        return (float(schedule(t)) for t in range(STEPS))


LIBRARIES = {"torch": Torch, "Keras": Keras, "optax": Optax}
ROWS = list(rows_of(PAGE.read_text()))
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
STEP, FUNCTION, SAVE, LOAD = BLOCKS


def rows(kind):
    return pytest.mark.parametrize(
        ("library", "theirs", "ours"),
        [pytest.param(row[0], *row[2:], id=": ".join(row[::2])) for row in ROWS if row[1] == kind],
    )


# ---- both sides ----


def draw(seed):
    """Parameters, and gradients from 1e-8 to 2 for each step. The small ones show where epsilon is added."""
    rng = np.random.default_rng(seed)
    start = [rng.uniform(1.0, 2.0, n) for n in LENGTHS]
    size = [10.0 ** rng.uniform(-8.0, 0.0, n) for n in LENGTHS]
    return start, [[s * rng.uniform(-0.5, 2.0, s.size) for s in size] for _ in range(STEPS)]


def run(cell, start, gradients):
    p = [a.copy() for a in start]
    opt = eval(cell, vars(fastopt), {"p": p, "lr": LR})
    for t, grads in enumerate(gradients):
        if t == CHANGE:
            opt.lr /= 2
        opt.step(grads)
    return p


@rows("optimizer")
def test_optimizers_match(library, theirs, ours):
    start, gradients = draw(seed=5)
    expected = LIBRARIES[library]().run(theirs, start, gradients)
    for a, b, c in zip(run(ours, start, gradients), expected, start, strict=True):
        np.testing.assert_allclose(a - c, b - c, rtol=1e-7, atol=1e-14)
        assert np.abs(a - c).max() > 1e-3  # the parameters moved


@rows("schedule")
def test_schedules_give_the_same_rates(library, theirs, ours):
    schedule = eval(ours, vars(fastopt.schedules))
    expected = list(LIBRARIES[library]().rates(theirs))
    # Keras computes cosines in float32.
    assert [schedule(t) for t in range(STEPS)] == pytest.approx(expected, rel=1e-6, abs=1e-7)


@rows("layer")
def test_layers_match(library, theirs, ours):
    """In training, and then in evaluation, which depends on the running statistics."""
    rng = np.random.default_rng(7)
    batches = [rng.normal(3.0, 2.0, (6, 4)) for _ in range(4)]
    layer = eval(ours, vars(fastopt))
    for i, (x, expected) in enumerate(
        zip(batches, LIBRARIES[library]().normalized(theirs, batches), strict=True)
    ):
        (layer.train if i < len(batches) - 1 else layer.eval)()
        np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


# ---- the examples with torch ----


@pytest.fixture
def page(tmp_path):
    """The variables that the examples use: a model with a frozen and a 16-bit parameter, and a batch."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    model[0].weight.requires_grad_(False)
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16), False))
    batch = {"x": torch.randn(8, 3), "y": torch.randn(8, 1), "loss": torch.nn.functional.mse_loss}
    return {"torch": torch, "fastopt": fastopt, "model": model, "file": tmp_path / "run.npz", **batch}


def test_a_model_is_stepped_saved_and_loaded_as_the_page_says(page):
    model = page["model"]
    before = {name: p.clone() for name, p in model.named_parameters()}
    exec(STEP, page)
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    assert moved == {*before} - {"0.weight", "scale"}
    exec(SAVE, page)
    saved = {name: t.clone() for name, t in model.state_dict().items()}
    for t in model.state_dict().values():
        t.zero_()
    page["opt"].step_count = 7
    exec(LOAD, page)
    assert all(t.equal(saved[name]) for name, t in model.state_dict().items())
    assert page["opt"].step_count == 1
    assert page["opt"].params["0.bias"] is model[0].bias


def test_batch_norm_autograd_function_has_the_gradients_of_torch(page):
    torch = page["torch"]
    exec(FUNCTION, page)
    shapes = (8, 4), (4,), (4,)
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    dy = torch.randn(4, 8, dtype=torch.float64).t()  # not in C order

    def theirs(x, gamma, beta):
        return torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True)

    found, expected = (
        [y := norm(*given), *torch.autograd.grad(y, given, dy)]
        for norm in (page["BatchNorm"].apply, theirs)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("changed", ["x", "gamma"])
def test_a_change_in_place_before_backward_raises_as_in_torch(page, changed):
    torch = page["torch"]
    exec(FUNCTION, page)
    given = {"x": torch.randn(8, 4), "gamma": torch.ones(4), "beta": torch.zeros(4)}
    saved = {name: t.requires_grad_() * 1 for name, t in given.items()}
    y = page["BatchNorm"].apply(*saved.values())
    with torch.no_grad():
        saved[changed].mul_(5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_peeking_at_a_batch_skips_it_unless_position_is_reset():
    batches = fastopt.data.minibatches(np.arange(6), batch_size=2)
    next(iter(batches))
    assert len(list(batches)) == 2
    next(iter(batches))
    batches.position = 0
    assert len(list(batches)) == 3


# ---- the page ----


def is_optimizer(public):
    return (
        isinstance(public, type)
        and issubclass(public, fastopt.Optimizer)
        and public is not fastopt.Optimizer
    )


def test_every_optimizer_has_a_row_in_every_library():
    every = {name for name in fastopt.__all__ if is_optimizer(getattr(fastopt, name))}
    for library in LIBRARIES:
        ours = [row[3] for row in ROWS if row[:2] == (library, "optimizer")]
        assert {cell.partition("(")[0] for cell in ours} == every


def test_no_row_is_left_out():
    """Every table row of code is one of the tested rows, except in the sections that no test compares."""
    compared = PAGE.read_text().partition("## Coupled")[0]
    assert len(ROWS) == len(re.findall(r"^\| `.*\(.*\|$", compared, re.MULTILINE))
