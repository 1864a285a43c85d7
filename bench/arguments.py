"""Types of the command-line arguments: a wrong value is reported before anything is measured."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from bench.case import DTYPES, SHORT
from bench.record import Record

MAX_SIZE = 2**48  # elements; no machine has room for more


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def some_names(text: str) -> list[str]:
    if not (parts := names(text)):
        raise argparse.ArgumentTypeError("expected at least one value")
    return parts


def dtypes(text: str) -> list[str]:
    chosen = [DTYPES.get(part, part) for part in some_names(text)]
    if unknown := set(chosen) - set(SHORT):
        raise argparse.ArgumentTypeError(f"unknown dtype: {', '.join(sorted(unknown))}")
    return chosen


def sizes(text: str) -> list[int]:
    first, colon, last = text.partition(":")
    if not colon:
        return [_size(part) for part in some_names(text)]
    smallest, largest = _size(first), _size(last)
    if smallest > largest:
        raise argparse.ArgumentTypeError(f"empty range {text!r}, expected the smaller size first")
    return [smallest << power for power in range((largest // smallest).bit_length())]


def _size(text: str) -> int:
    base, power, exponent = text.partition("**")
    try:
        size = int(base) ** min(int(exponent), MAX_SIZE.bit_length()) if power else int(float(base))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"invalid size {text!r}, expected one such as 1e7 or 2**20")
    if size > MAX_SIZE:
        raise argparse.ArgumentTypeError(f"size {text} is too large, expected at most 2**48")
    return size


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"invalid time {text!r}, expected a finite number > 0")
    return value


# ---- files ----


def record(text: str) -> Record:
    """Read the record of an earlier run."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"file {text} does not exist")
    try:
        return Record.read(path)
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text} is not a record written by --json") from None


def new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not _is_writable(path):
        raise argparse.ArgumentTypeError(f"cannot write to {text}")
    return path


def folder(text: str) -> Path:
    """Check that a folder is writable, or that it can be created together with its parents."""
    path = Path(text)
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not existing.is_dir() or not _is_writable(existing):
        raise argparse.ArgumentTypeError(f"{text} is not a writable folder")
    return path


def _is_writable(path: Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.W_OK)
