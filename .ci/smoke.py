"""What an installed fastopt must do with nothing but NumPy beside it."""

import os
import subprocess
import sys
from importlib import metadata

import numpy as np

import fastopt
from fastopt import _core

STEPS = (
    "import fastopt, numpy; w = numpy.ones(3); fastopt.Adam(w).step(w.copy()); fastopt.show_config()"
)


def check_environment() -> None:
    assert fastopt.__file__.startswith(sys.prefix), fastopt.__file__
    present = {dist.name.lower() for dist in metadata.distributions()}
    assert present <= {"fastopt", "numpy", "pip", "setuptools"}, present


def check_optimizers() -> None:
    """Every optimizer goes down a parabola, in place."""
    for name in fastopt.__all__:
        cls = getattr(fastopt, name)
        if (
            not (isinstance(cls, type) and issubclass(cls, fastopt.Optimizer))
            or cls is fastopt.Optimizer
        ):
            continue
        for dtype in (np.float16, np.float32, np.float64):
            w = [np.full((3, 5), 2.0, dtype), np.full(1000, -1.0, dtype)]
            opt = cls(w, lr=0.1, clip_norm=1.0)
            before = sum(float(np.vdot(x, x)) for x in w)
            for _ in range(20):
                opt.step([2 * x for x in w])
            assert sum(float(np.vdot(x, x)) for x in w) < before, (name, dtype)
            assert opt.step_count == 20
        print(name, "steps")


def check_course() -> None:
    """Initial weights, batches, augmentation and averages ask for nothing else."""
    w = fastopt.init.he_normal((8, 3), generator=fastopt.Generator(1))
    ema, stopper = fastopt.EMA(w), fastopt.EarlyStopping()
    opt, schedule = fastopt.SGD(w), fastopt.schedules.Cosine(0.01, steps=4)
    raw = np.random.default_rng(0).normal(3.0, size=(20, 8)).astype(np.float32)
    x = fastopt.data.Standardizer().fit(raw).transform(raw)
    for batch, i in fastopt.data.minibatches(x, np.arange(20), batch_size=6):
        noisy = fastopt.data.augment.noise(batch, fastopt.data.augment.Draws(i))
        opt.lr = schedule(opt.step_count)
        opt.step(noisy.T @ (noisy @ w))
        ema.update()
    assert not stopper.update(fastopt.penalties.l2(w, 0.1), w)
    ema.copy_to()
    print("the rest of the course runs")


def check_instruction_sets() -> None:
    for isa in _core.isas_supported():
        environment = {**os.environ, "FASTOPT_ISA": isa}
        command = [sys.executable, "-I", "-c", STEPS]
        shown = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
        assert any(
            line.split() == ["instruction", "set", "used", isa] for line in shown.splitlines()
        ), shown
        print("FASTOPT_ISA", isa, "is obeyed")


check_environment()
check_optimizers()
check_course()
check_instruction_sets()
fastopt.show_config()
