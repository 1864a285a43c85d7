"""The kernels whose speed has a target: where they are, which path through them is the usual one, and how
many bytes they move.

A work is a sequence of passes. ``required`` and ``forbidden`` define the path through a kernel
(:meth:`bench.sass.Kernel.path`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

VECTOR = 16  # bytes
WIDEN = r"F2F\.F64\.F32"
LOAD, STORE = r"LDG?\.E(\.EF)?\.128", r"STG?\.E(\.EF)?\.128"


@dataclass(frozen=True)
class Pass:
    file: str  # in csrc/cuda, without its suffix
    kernel: str  # a pattern in its mangled name
    threads: int  # per block
    elements: int  # per thread, on the path
    reads: int  # bytes per element
    writes: int
    required: Mapping[str, int]
    forbidden: str = "CALL"
    values: int = 0  # total per thread, for sums whose shape determines it


@dataclass(frozen=True)
class Work:
    name: str
    target: float  # as a share of a copy's speed
    passes: tuple[Pass, ...]
    launches: int = 1


RULES = {  # by rule: its pattern in the kernel's name, the number of arrays read and of arrays written
    "sgd": ("3SGDIfE", 2, 1),
    "momentum": ("8MomentumIfE", 3, 2),
    "nesterov": ("8NesterovIfE", 3, 2),
    "adagrad": ("7AdaGradIfE", 3, 2),
    "rmsprop": ("7RMSpropIfLb0ELb0EE", 3, 2),
    "rmsprop momentum": ("7RMSpropIfLb0ELb1EE", 4, 3),
    "rmsprop centered": ("7RMSpropIfLb1ELb0EE", 4, 3),
    "rmsprop centered momentum": ("7RMSpropIfLb1ELb1EE", 5, 4),
    "adam": ("4AdamIfLb0EE", 4, 3),
    "adam amsgrad": ("4AdamIfLb1EE", 5, 4),
}
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
TYPES = {"float32": "f", "bfloat16": "NS_8BFloat16E", "float16": "NS_4HalfE"}


def works() -> list[Work]:
    return [*_steps(), *_clips(), *_batch_norms(), *_dropouts()]


def _step(rule: str, dtype: str) -> Pass:
    kernel, loads, stores = RULES[rule]
    size = SIZES[dtype]
    parts = 2 if rule == "sgd" else 1  # vectors of each array in flight per thread
    required = {LOAD: parts * loads, STORE: parts * stores}
    elements = parts * VECTOR // size
    return Pass(f"step_{dtype}", kernel, 256, elements, loads * size, stores * size, required)


def _steps() -> Iterator[Work]:
    for dtype in SIZES:
        for rule in RULES:
            yield Work(f"{rule}, {dtype}", 0.93, (_step(rule, dtype),))


def _clips() -> Iterator[Work]:
    for dtype, load in (("float32", r"LD\.E$"), ("bfloat16", r"LD\.E\.U16")):
        kernel = r"sum_groupsINS_5Norm2ELNS1_8NormPassE0E"
        ahead = 16 if dtype == "float32" else 32
        norm = Pass("norm", kernel, 256, ahead, SIZES[dtype], 0, {load: ahead, WIDEN: ahead})
        yield Work(f"norm of a clip, {dtype}", 0.9, (norm,), 2)
        yield Work(f"clip and adam, {dtype}", 0.9, (norm, _step("adam", dtype)), 4)


def _batch_norms() -> Iterator[Work]:
    for dtype, (layout, rows) in product(("float32", "bfloat16"), (("NCHW", False), ("NHWC", True))):
        about = f"{layout}, {dtype}"
        forward = _sums("Moment", 1, dtype, rows), _apply("normalize", 1, dtype, rows)
        backward = _sums("Gradient", 2, dtype, rows), _apply("gradient", 2, dtype, rows)
        yield Work(f"BatchNorm forward, {about}", 0.85, forward, 3)
        yield Work(f"BatchNorm backward, {about}", 0.85, backward, 3)


def _sums(name: str, arrays: int, dtype: str, rows: bool) -> Pass:
    plain = "Lb0E" if name == "Gradient" else ""  # without the bits of ReLU
    kernel = f"sum_{'rows' if rows else 'planes'}.*{name}SumsI{TYPES[dtype]}{plain}E{'ELb0E' if rows else ''}"
    ahead = (64 if rows else 32) // arrays
    load = r"LDG\.E$" if dtype == "float32" else r"LDG\.E\.U16"
    required = {load: arrays * ahead, WIDEN: arrays * ahead}
    threads, values = (128, 128) if rows else (256, 4096 // 4 // 16)  # for rows: if there are many
    reads = arrays * SIZES[dtype]
    return Pass("batch_norm_sums", kernel, threads, ahead, reads, 0, required, values=values)


def _apply(name: str, arrays: int, dtype: str, rows: bool) -> Pass:
    kernel = f"{name}_flatI{TYPES[dtype]}Lb{rows:d}E"
    elements = 4 * VECTOR // SIZES[dtype]
    additions = 2 if name == "normalize" else 3  # in the formula of an element
    required = {LOAD: 4 * arrays, STORE: 4, "FADD": additions * elements}
    size = SIZES[dtype]
    return Pass("batch_norm_flat", kernel, 256, elements, arrays * size, size, required)


def _dropouts() -> Iterator[Work]:
    """Yield the forward kernel only: backward generates the same random words with the same kernel."""
    for dtype, count in (("float32", 4), ("bfloat16", 8)):
        kernel = f"drop_allI{TYPES[dtype]}Li{count}ELb1E"
        # Twenty products for four words, less those of the first two rounds, which all threads share.
        required = {LOAD: 2, STORE: 2, r"IMAD\.WIDE\.U32": 2 * 18 * count // 4}
        # Excludes the path with a bias, which divides an index, and the path at the end of an array, which
        # checks the bounds of every element.
        forbidden = r"IMAD\.WIDE\.U32\.X|BSSY"
        one = Pass("dropout", kernel, 256, 2 * count, SIZES[dtype], SIZES[dtype], required, forbidden)
        yield Work(f"dropout, {dtype}", 0.9, (one,))
