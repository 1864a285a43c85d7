"""Everything public has a place in the documentation. .ci/run checks that the documentation builds and that
its examples run."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import fastopt
from fastopt import checkpoint, data, functional, init, penalties, schedules

API = Path(__file__).parents[1] / "docs" / "api"


def documented():
    """Yield the full names that the pages pass to autodoc."""
    for page in API.glob("*.rst"):
        module = ""
        for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", page.read_text(), re.MULTILINE):
            if kind in ("automodule", "currentmodule"):
                module = name
            elif kind in ("autoclass", "autofunction"):
                yield f"{module}.{name}"


@pytest.mark.parametrize(
    "module",
    [fastopt, functional, schedules, init, penalties, checkpoint, data, data.augment],
    ids=lambda m: m.__name__,
)
def test_every_public_name_is_documented_once(module):
    names = [n for n in module.__all__ if not isinstance(getattr(module, n), ModuleType)]
    pages = [n.rpartition(".")[2] for n in documented() if n.rpartition(".")[0] == module.__name__]
    assert sorted(pages) == sorted(names)
