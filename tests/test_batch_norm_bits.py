"""BatchNorm's bits are the same for any thread count, instruction set, alignment, kind of store and split into
pieces, and equal those of its formulas computed one rounding at a time."""

from __future__ import annotations

import numpy as np
import pytest

import reference_reductions as reductions
from batch_norm_cases import BY_ID, CASES, FEW, Case, Form, batch, result_image
from fastopt import _core
from fastopt import functional as F
from layouts import permuted, shifted, spread
from step_cases import image
from test_bits import MACHINES, turn
from tolerance import DTYPES, wide

# One form for each path through the kernels that leaves a remainder: of blocks, tiles, lanes, bits of a byte.
FORMS = [
    Form((300, 65)),
    Form((3, 1500)),
    Form((33, 3, 300)),
    Form((600, 2, 13)),
    Form((2, 3, 6007)),
    Form((2, 9, 11, 65), axis=-1),
    Form((5, 45, 7, 7)),
]
# Planes so short that adjacent channels are processed together: two such groups and three more channels. The
# last ones have more than one block.
SHORT = [Form((5, 2 * (1024 // n) + 3, n)) for n in (1, 2, 8, 15, 16, 17, 49, 127, 128, 129)]
SHORT += [Form((90, 23, 7, 7)), Form((600, 20, 8))]
# Rows of so few channels that several are processed as one, with a remainder in each block and in the last
# block. With 17 channels, the ReLU mask is stored in separate rows.
NARROW = [Form((1100, 8)), Form((600, 16)), Form((333, 24)), Form((201, 64)), Form((650, 17))]
# Rows of so few channels that a block's quarters are summed side by side: two blocks and a partial one, with
# rows of one to four registers of either width, and more. Then whole blocks, which must not be read past their
# end.
FEW_CHANNELS = [Form((261, c)) for c in (2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 20, 24, 25, 31, 32, 33)]
FEW_CHANNELS += [Form((256, c)) for c in (3, 7, 12, 20, 30)]
BOTH = [BY_ID["residual-relu"], BY_ID["affine"], BY_ID["eval-residual-relu"]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_threads_and_instruction_sets(case, form, dtype, machine):
    results = {}
    for isa, threads in MACHINES:
        turn(isa, threads)
        b = batch(form, dtype)
        results[isa, threads] = result_image(b, *b.run(case))
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_any_byte_offset(case, form, dtype, isa):
    b = batch(form, dtype)
    aligned = result_image(b, *b.run(case))
    for offset in (1, 4, 8, 24, 35, 62):
        c = batch(form, dtype)
        for k, name in enumerate(vars(c)):
            if name != "form":
                setattr(c, name, shifted(getattr(c, name), (5 * k + offset) % 64))
        out = shifted(np.empty_like(c.x), (offset + 7) % 64)
        y, saved = F.batch_norm_forward(c.x, **c.given(case), out=out)
        dx = shifted(np.empty_like(c.x), (3 * offset) % 64)
        assert result_image(c, y, saved, F.batch_norm_backward(c.dy, saved, out=dx)) == aligned


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("offset", [0, 1, 2, 4, 8])
def test_nontemporal_stores_give_the_same_bits(form, dtype, offset, isa):
    """If x exceeds the last-level cache, results are written with non-temporal stores, at any alignment."""
    case, results = BY_ID["residual-relu"], []
    try:
        for cache in (2**40, 1):
            _core.set_last_level_cache(cache)
            b = batch(form, dtype)
            y, saved = F.batch_norm_forward(b.x, **b.given(case), out=shifted(b.x, offset))
            dx = shifted(b.x, offset)
            results.append(result_image(b, y, saved, F.batch_norm_backward(b.dy, saved, out=dx)))
    finally:
        _core.set_last_level_cache(0)
    assert results[0] == results[1]


# ---- pieces ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.training], ids=str)
def test_separate_passes_on_a_whole_batch_give_the_same_bits(case, form, dtype):
    b, c = batch(form, dtype), batch(form, dtype)
    whole = result_image(b, *b.run(case))
    moments = F.batch_norm_join([F.batch_norm_moments(c.x, axis=form.axis)])
    given = c.given(case)
    y, saved = F.batch_norm_apply(c.x, moments, **given)
    sums = F.batch_norm_backward_reduce(c.dy, saved)
    grads = F.batch_norm_backward_apply(c.dy, saved, sums)
    assert result_image(c, y, saved, grads) == whole
    again = F.batch_norm_backward_reduce(c.dy, saved)
    assert image(again) == image(sums)  # sums are not changed by backward_apply


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", [FORMS[0], *FORMS[2:5]], ids=str)
def test_two_joined_parts_match_the_whole_to_rounding(form, dtype):
    """A data-parallel batch: the moments and sums of the parts are combined into those of the whole."""
    b, case = batch(form, dtype), BY_ID["relu"]
    y, saved, grads = b.run(case)
    cut = form.shape[0] // 3
    parts = [slice(0, cut), slice(cut, None)]
    whole = F.batch_norm_join([F.batch_norm_moments(b.x[p]) for p in parts])
    given = {"gamma": b.gamma, "beta": b.beta, "activation": "relu"}
    passed = [F.batch_norm_apply(b.x[p], whole, **given) for p in parts]
    sums = [F.batch_norm_backward_reduce(b.dy[p], s) for p, (_, s) in zip(parts, passed, strict=True)]
    total = F.BatchNormSums(*(sum(numbers) for numbers in zip(*sums, strict=True)))
    rounding = 64 * np.finfo(dtype).eps
    for p, (part_y, part_saved) in zip(parts, passed, strict=True):
        part = F.batch_norm_backward_apply(b.dy[p], part_saved, total)
        np.testing.assert_allclose(part_y, y[p], rtol=rounding, atol=rounding)
        np.testing.assert_allclose(part.dx, grads.dx[p], rtol=rounding, atol=rounding)
        np.testing.assert_allclose(part.dgamma, grads.dgamma, rtol=rounding, atol=rounding)
        np.testing.assert_allclose(part.dbeta, grads.dbeta, rtol=rounding, atol=rounding)
        assert part_saved.count == saved.count == form.count


def test_the_backward_pass_may_be_taken_twice():
    for case in CASES:
        b = batch(FEW[0])
        _, saved, grads = b.run(case)
        again = F.batch_norm_backward(b.dy, saved)
        assert image(g for g in grads if g is not None) == image(g for g in again if g is not None)


# ---- one rounding at a time ----


def by_hand(b, case: Case, rows: bool):
    """Both passes in NumPy on an array of shape (values, channels): statistics and sums in float64 with the
    fixed reduction tree, elements in their compute type."""
    small = b.x.dtype.itemsize == 2
    kind = np.float32 if small else b.x.dtype.type
    values, dy, residual = (
        np.moveaxis(a, 1, -1).reshape(-1, b.form.channels).astype(kind) for a in (b.x, b.dy, b.residual)
    )
    n = float(len(values))
    mean, m2 = reductions.moments(values, rows)
    var = m2 / n
    if not case.training:
        mean, var = wide(b.running_mean), wide(b.running_var)
    invstd = 1.0 / np.sqrt(var + 1e-5)
    scale = wide(b.gamma) * invstd
    hi = mean.astype(kind)
    shift = wide(b.beta) + (wide(hi) - mean) * scale
    y = (values - hi) * scale.astype(kind) + shift.astype(kind)
    if case.residual:
        y = y + residual
    if case.relu:
        y = np.maximum(y, kind(0))
        dy = np.where(y.astype(b.x.dtype) > 0, dy, kind(0))
    sum_dy, products = reductions.backward_sums(values, dy, mean, rows)
    slope = (invstd * invstd * products / n).astype(kind)
    offset = (sum_dy / n + (wide(hi) - mean) * wide(slope)).astype(kind)
    dx = ((dy - offset) - (values - hi) * slope) * scale.astype(kind)
    if not case.training:
        dx = dy * scale.astype(kind)
    by_channel = [products * invstd, sum_dy]
    rounded = [v.astype(kind).astype(b.x.dtype) for v in by_channel]
    return [y.astype(b.x.dtype), dx.astype(b.x.dtype), *rounded]


def check_by_hand(case, form, dtype):
    b = batch(form, dtype, mean=30.0)  # a mean whose rounding to 16 or 32 bits matters
    y, _, grads = b.run(case)
    got = [y, grads.dx, grads.dgamma, grads.dbeta]
    want = by_hand(b, case, rows=b.form.count == b.x.shape[0])
    for name, mine, theirs in zip(("y", "dx", "dgamma", "dbeta"), got, want, strict=True):
        flat = np.moveaxis(mine, 1, -1).reshape(theirs.shape) if mine.ndim > 1 else mine
        np.testing.assert_array_equal(wide(flat), wide(theirs), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [*FORMS[:5], Form((1, 3, 20_011)), Form((1030, 7))], ids=str)
@pytest.mark.parametrize("case", [BY_ID["affine"], BY_ID["residual-relu"]], ids=str)
def test_passes_give_the_bits_of_their_formulas(case, form, dtype, isa):
    check_by_hand(case, form, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", SHORT + NARROW + FEW_CHANNELS, ids=str)
@pytest.mark.parametrize("case", [*BOTH, BY_ID["eval"]], ids=str)
def test_short_planes_and_rows_give_the_bits_of_their_formulas(case, form, dtype, isa):
    check_by_hand(case, form, dtype)


# Layouts of a batch of planes: channels with a large stride, a small negative one, and one within a row stride.
VIEWS = {
    "every other": lambda a: spread(a, (2, 3, 1, 1)),
    "backwards": lambda a: spread(a, (-1, -1, 1, 1)),
    "cut out": lambda a: spread(a, (1, 1, 2, 1)),
    "channels between rows": lambda a: permuted(a, (0, 2, 1, 3)),
    "3 bytes off": lambda a: shifted(a, 3),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", BOTH, ids=str)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_short_planes_in_any_layout(view, case, dtype, isa):
    form = Form((5, 90, 5, 8))
    plain, b = batch(form, dtype), batch(form, dtype)
    for name in ("x", "residual", "dy"):
        setattr(b, name, view(getattr(b, name)))
    assert result_image(b, *b.run(case)) == result_image(plain, *plain.run(case))


ROWS = {
    "part of longer rows": lambda a: np.hstack([a, a])[:, : a.shape[1]],
    "every other": lambda a: spread(a, (2, 1)),
    "backwards": lambda a: spread(a, (-1, 1)),
    "1 byte off": lambda a: shifted(a, 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("names", [("x",), ("dy",), ("x", "residual", "dy")], ids=" ".join)
@pytest.mark.parametrize("view", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("channels", [3, 12, 30])
@pytest.mark.parametrize("case", [BY_ID["affine"], BY_ID["residual-relu"]], ids=str)
def test_rows_of_few_channels_in_any_layout(case, channels, view, names, dtype, isa):
    form = Form((261, channels))
    plain, b = batch(form, dtype), batch(form, dtype)
    for name in names:
        setattr(b, name, view(getattr(b, name)))
    assert result_image(b, *b.run(case)) == result_image(plain, *plain.run(case))
