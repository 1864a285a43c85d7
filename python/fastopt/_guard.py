"""An optimizer is for one thread at a time: what is refused to another while one steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastopt import _core


def refuse_amid_a_step(stepper: _core.Stepper) -> None:
    """Arrays that cannot be stepped are for the next step to refuse: they may be saved, or replaced before."""
    with suppress(TypeError, ValueError):
        stepper.check()


@contextmanager
def undisturbed(stepper: _core.Stepper) -> Iterator[None]:
    """Around a copy, which takes no lock: one of arrays that were stepped meanwhile is refused when it ends."""
    refuse_amid_a_step(stepper)
    before = stepper.step_count, stepper.skipped_steps
    yield
    refuse_amid_a_step(stepper)
    if (stepper.step_count, stepper.skipped_steps) != before:
        raise RuntimeError("this optimizer was stepped by another thread while it was copied")
