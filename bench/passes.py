"""The kernels whose speed has a target: where they are, what their usual way looks like, what they move.

A work is passes, one after the other; ``needs`` and ``never`` say which way through a kernel is meant
(:meth:`bench.sass.Kernel.way`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

VECTOR = 16  # bytes
WIDEN = r"F2F\.F64\.F32"
LOAD, STORE = r"LDG?\.E(\.EF)?\.128", r"STG?\.E(\.EF)?\.128"


@dataclass(frozen=True)
class Pass:
    file: str  # of csrc/cuda, less its ending
    kernel: str  # in its mangled name
    threads: int  # of a block
    elements: int  # of a thread, on the way
    reads: int  # bytes an element
    writes: int
    needs: Mapping[str, int]
    never: str = "CALL"
    values: int = 0  # of a thread, where the shape of a sum says how many it has in all


@dataclass(frozen=True)
class Work:
    name: str
    target: float  # of a copy's speed
    passes: tuple[Pass, ...]
    launches: int = 1


RULES = {  # by the rule in the kernel's name: the arrays that are read, those that are written
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
    parts = 2 if rule == "sgd" else 1  # vectors of each array in flight for a thread
    needs = {LOAD: parts * loads, STORE: parts * stores}
    elements = parts * VECTOR // size
    return Pass(f"step_{dtype}", kernel, 256, elements, loads * size, stores * size, needs)


def _steps() -> Iterator[Work]:
    for dtype in SIZES:
        for rule in RULES:
            yield Work(f"{rule}, {dtype}", 0.93, (_step(rule, dtype),))


def _clips() -> Iterator[Work]:
    for dtype, load in (("float32", r"LD\.E$"), ("bfloat16", r"LD\.E\.U16")):
        kernel = r"sum_groupsINS_5Norm2ELNS1_7ReadingE0E"
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
    plain = "Lb0E" if name == "Gradient" else ""  # without ReLU's bits
    kernel = f"sum_{'rows' if rows else 'planes'}.*{name}SumsI{TYPES[dtype]}{plain}E{'ELb0E' if rows else ''}"
    ahead = (64 if rows else 32) // arrays
    load = r"LDG\.E$" if dtype == "float32" else r"LDG\.E\.U16"
    needs = {load: arrays * ahead, WIDEN: arrays * ahead}
    threads, values = (128, 128) if rows else (256, 4096 // 4 // 16)  # of rows, where there are many
    reads = arrays * SIZES[dtype]
    return Pass("batch_norm_sums", kernel, threads, ahead, reads, 0, needs, values=values)


def _apply(name: str, arrays: int, dtype: str, rows: bool) -> Pass:
    kernel = f"{name}_flatI{TYPES[dtype]}Lb{rows:d}E"
    elements = 4 * VECTOR // SIZES[dtype]
    sums = 2 if name == "normalize" else 3  # of an element's formula
    needs = {LOAD: 4 * arrays, STORE: 4, "FADD": sums * elements}
    size = SIZES[dtype]
    return Pass("batch_norm_flat", kernel, 256, elements, arrays * size, size, needs)


def _dropouts() -> Iterator[Work]:
    """Backward draws the same words, and so is the same kernel."""
    for dtype, count in (("float32", 4), ("bfloat16", 8)):
        kernel = f"drop_allI{TYPES[dtype]}Li{count}ELb1E"
        # Twenty products for four words, less those of the first two rounds that all threads share.
        needs = {LOAD: 2, STORE: 2, r"IMAD\.WIDE\.U32": 2 * 18 * count // 4}
        # Not by way of a bias, for which an index is divided, nor of an array's end, asked for within.
        never = r"IMAD\.WIDE\.U32\.X|BSSY"
        one = Pass("dropout", kernel, 256, 2 * count, SIZES[dtype], SIZES[dtype], needs, never)
        yield Work(f"dropout, {dtype}", 0.9, (one,))
