"""Detect that a thread or a fork meets an optimizer in the middle of a step of another thread."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastopt import _core


@contextmanager
def no_concurrent_step(stepper: _core.Stepper) -> Iterator[None]:
    """Detect a concurrent step while an optimizer is copied; raises ``RuntimeError`` at exit. Takes no lock."""
    stepper.require_idle()
    before = stepper.step_count, stepper.skipped_steps
    yield
    stepper.require_idle()
    if (stepper.step_count, stepper.skipped_steps) != before:
        raise RuntimeError("this optimizer was stepped by another thread while it was copied")


# By id, as a subclass may define equality without a hash.
_optimizers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def watch_forks(optimizer: Any) -> None:
    """Repair ``optimizer`` in a child forked while another thread steps it, as the child lacks that thread."""
    _optimizers[id(optimizer)] = optimizer


def _release_steppers() -> None:
    """Replace steppers that would be busy forever; their optimizers refuse steps until a state is loaded."""
    for optimizer in list(_optimizers.values()):
        stepper = optimizer.__dict__.get("_stepper")
        if stepper is None or stepper.on_device:  # CUDA cannot be used after a fork
            continue
        try:
            stepper.require_idle()
        except RuntimeError:
            optimizer._forked_in_step = True
            optimizer._rebuild_stepper(optimizer._states)


os.register_at_fork(after_in_child=_release_steppers)


def check_not_forked_in_step(optimizer: Any) -> None:
    if optimizer._forked_in_step:
        raise RuntimeError(
            "this process was forked while another thread stepped this optimizer, so that its arrays may be "
            "half written; load the parameters, then call load_state_dict"
        )
