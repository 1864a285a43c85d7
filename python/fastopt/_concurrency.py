"""An optimizer is for one thread at a time: what is refused to another while one steps."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastopt import _core


@contextmanager
def no_concurrent_step(stepper: _core.Stepper) -> Iterator[None]:
    """Around a copy, which takes no lock: one of arrays that were stepped meanwhile is refused when it ends."""
    stepper.require_idle()
    before = stepper.step_count, stepper.skipped_steps
    yield
    stepper.require_idle()
    if (stepper.step_count, stepper.skipped_steps) != before:
        raise RuntimeError("this optimizer was stepped by another thread while it was copied")


# By id, as a subclass may define equality without a hash.
_optimizers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def watch_forks(optimizer: Any) -> None:
    """Have ``optimizer._forked_during_step`` called in a child forked while another thread steps it: the child
    has no such thread, which would end the step."""
    _optimizers[id(optimizer)] = optimizer


def _check_steppers() -> None:
    for optimizer in list(_optimizers.values()):
        stepper = optimizer.__dict__.get("_stepper")
        if stepper is None or stepper.on_device:  # CUDA cannot be used after a fork
            continue
        try:
            stepper.require_idle()
        except RuntimeError:
            optimizer._forked_during_step()


os.register_at_fork(after_in_child=_check_steppers)
