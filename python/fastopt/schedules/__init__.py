r"""Learning rates that change with the step.

A schedule is a function of the step, counted from 0, and has no state: a resumed run needs only the step, which
an optimizer has in ``step_count``.

>>> import numpy as np, fastopt
>>> opt = fastopt.SGD(np.ones(3), lr=1.0)
>>> schedule = fastopt.schedules.Warmup(10, fastopt.schedules.Cosine(0.5, steps=100))
>>> opt.lr = schedule(opt.step_count)  # before each opt.step(grads)

Called with the epoch instead of the step, it is a schedule by epochs. With a learning rate of 1, it is a factor
for rates that differ between groups. Only :class:`ReduceOnPlateau`, which monitors the loss, has state.

Rates are Python floats, computed from IEEE operations alone: the same bits on every machine. Schedules are
frozen dataclasses: they can be compared, printed and pickled. Wrong values raise ``ValueError``, wrong types
``TypeError``.
"""

from fastopt.schedules._decay import Constant, Cosine, Exponential, MultiStep, Polynomial, Step
from fastopt.schedules._plateau import ReduceOnPlateau
from fastopt.schedules._schedule import Schedule
from fastopt.schedules._warmup import OneCycle, Warmup

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "Warmup",
]
