"""Discovery of tasks and competitors: a folder of ``bench/`` is a task, and a file in it is a competitor."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from bench.case import Case

OURS = "fastopt"


def tasks() -> dict[str, ModuleType]:
    """Import every package of ``bench/``. It defines the task's cases, and which of them the full suite
    measures."""
    modules = pkgutil.iter_modules(import_module("bench").__path__)
    return {m.name: import_module(f"bench.{m.name}") for m in modules if m.ispkg}


def select_competitors(case: Case, modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """Return fastopt's module and those of the peers that the case includes."""
    return {n: m for n, m in modules.items() if n == OURS or n.startswith(case.peers)}


def competitors(task: ModuleType) -> dict[str, ModuleType]:
    """Return the competitors' modules by name, fastopt's first. Files whose names begin with _ are helpers."""
    package = import_module(task.COMPETITORS)
    files = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    modules = [import_module(f"{package.__name__}.{name}") for name in files]
    return {m.NAME: m for m in sorted(modules, key=lambda m: m.NAME != OURS)}


def has_prefix(name: str, prefixes: list[str]) -> bool:
    return name.lower().startswith(tuple(prefix.lower() for prefix in prefixes))
