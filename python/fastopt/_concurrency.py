"""An optimizer is for one thread at a time: what is refused to another while one steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
