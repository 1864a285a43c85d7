"""A clip by global norm and then the step, as a training loop has them. The competitors are the
step's."""

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
    """Adam's step does not depend on the gradient's scale, so that momentum's shows that the clip is
    right."""
    size = step.LARGE[device][quick]
    for rule in DEFAULT:
        for name in ("array", "mlp"):
            yield ClipCase(rule, name, size, section="clip and step", peers=step.FASTER)
    if not quick:
        yield ClipCase("adamw", "resnet50", section="clip and step", peers=step.FASTER, weighed=True)
