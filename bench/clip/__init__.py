"""Clipping by global norm followed by the step, as in a training loop. The competitors are those of
``step``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench import step

WHAT, WORKLOADS, SMALL = step.WHAT, step.WORKLOADS, step.SMALL
COMPETITORS, release = step.COMPETITORS, step.release
DEFAULT = ("momentum", "adamw")


@dataclass(frozen=True)
class ClipCase(step.StepCase):
    task = "clip"
    clip = True


CASE = ClipCase


def suite(quick: bool, device: str) -> Iterator[ClipCase]:
    """Yield the cases of the full suite. Adam's step does not depend on the scale of the gradient, so
    momentum is included to check that the clip is correct."""
    size = step.LARGE[device][quick]
    for rule in DEFAULT:
        for name in ("array", "mlp"):
            yield ClipCase(rule, name, size, section="clip and step", peers=step.ALL_BUT_SLOW)
    if not quick:
        yield ClipCase(
            "adamw", "resnet50", section="clip and step", peers=step.ALL_BUT_SLOW, measure_memory=True
        )
