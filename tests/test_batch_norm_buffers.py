"""BatchNorm on arrays of any layout and library, in place or not. A strided batch gives the bits of its
contiguous copy, and passes allocate little besides their results."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest

from adam_setup import refused
from batch_norm_cases import BY_ID, Form, batch, result_image
from fastopt import functional as F
from layouts import OldDLPack, OnlyDLPack, OnlyInterface, odd_strides, spread
from step_cases import image
from subprocesses import output
from test_memory import reference_counts
from tolerance import DTYPES

# ---- strides ----

PLANES, ROWS = Form((6, 5, 7, 24)), Form((40, 65))
LAST = Form((3, 6, 7, 20), axis=-1)


def inside(a: np.ndarray) -> np.ndarray:
    """A copy of ``a`` inside an array that is larger along every axis."""
    room = np.full([n + 3 for n in a.shape], 7, a.dtype)
    view = room[tuple(slice(1, n + 1) for n in a.shape)]
    view[...] = a
    return view


STRIDED = {
    "inside a larger array": (PLANES, inside),
    "rows inside a larger array": (ROWS, inside),
    "channels last inside a larger array": (LAST, inside),
    "gaps": (PLANES, lambda a: spread(a, (2, 3, 2, 1))),
    "gaps between rows": (ROWS, lambda a: spread(a, (3, 1))),
    "backwards": (PLANES, lambda a: spread(a, (-1, -2, -1, 1))),
    "rows backwards": (ROWS, lambda a: spread(a, (-1, 1))),
    "size-1 axes with odd strides": (Form((9, 5, 1, 30)), odd_strides),
    "one channel with an odd stride": (Form((50, 1, 9)), odd_strides),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", STRIDED)
def test_a_strided_batch_gives_the_bits_of_its_copy(how, dtype):
    form, stride = STRIDED[how]
    case = BY_ID["residual-relu"]
    b, c = batch(form, dtype), batch(form, dtype)
    for name in ("x", "dy", "residual"):
        setattr(c, name, stride(getattr(c, name)))
    before = image([c.x, c.dy, c.residual])
    assert result_image(c, *c.run(case)) == result_image(b, *b.run(case))
    assert image([c.x, c.dy, c.residual]) == before
    found, plain = (F.batch_norm_moments(v.x, axis=form.axis) for v in (c, b))
    assert image(found[1:]) == image(plain[1:])


@pytest.mark.parametrize("one", ["x", "dy", "residual"])
@pytest.mark.parametrize("how", STRIDED)
def test_a_single_strided_array_gives_the_bits_of_its_copy(how, one):
    form, stride = STRIDED[how]
    b, c = batch(form), batch(form)
    setattr(c, one, stride(getattr(c, one)))
    case = BY_ID["residual-relu"]
    assert result_image(c, *c.run(case)) == result_image(b, *b.run(case))


WINDOWS = {
    "of a row": ((10,), 5, 0, 1),
    "of rows": ((4, 10), 5, 1, 1),
    "of rows, channels last": ((4, 10), 5, 1, -1),
    "of images": ((2, 3, 9, 8), (3, 3), (2, 3), 1),
    "of images, a place a channel": ((2, 3, 9, 8), (3, 3), (2, 3), -1),
}


@pytest.mark.parametrize("what", WINDOWS)
def test_sliding_windows_give_the_bits_of_their_copy(what):
    """Pairs of their axes have the same stride; results have an order of axes that the passes support."""
    shape, window, axes, axis = WINDOWS[what]
    a, dy = np.random.default_rng(23).standard_normal((2, *shape))
    x, dy = (np.lib.stride_tricks.sliding_window_view(v, window, axes) for v in (a, dy))
    found = []
    for each, back in ((x, dy), (x.copy(order="K"), dy.copy(order="K"))):
        y, saved = F.batch_norm_forward(each, axis=axis, residual=back, activation="relu")
        grads = F.batch_norm_backward(back, saved)
        moments = F.batch_norm_moments(each, axis=axis)
        found.append(image([y, grads.dx, grads.dresidual, *moments[1:]]))
    assert found[0] == found[1]


NOT_CONTIGUOUS = "expected its fastest-varying axis to be contiguous"
REFUSED = {
    "gaps between neighbours": lambda a: spread(a, (1, 1, 1, 2)),
    "neighbours backwards": lambda a: spread(a, (1, 1, 1, -1)),
    "broadcast": lambda a: np.broadcast_to(a[:1, :1, :1, :1], a.shape),
}


@pytest.mark.parametrize("one", ["x", "dy", "residual"])
@pytest.mark.parametrize("how", REFUSED)
def test_noncontiguous_fastest_axis_is_rejected(how, one):
    b, case = batch(PLANES), BY_ID["residual-relu"]
    setattr(b, one, REFUSED[how](getattr(b, one)))
    with pytest.raises(ValueError, match=f"^{one} has shape .* and strides .*, {NOT_CONTIGUOUS}"):
        b.run(case)


@pytest.mark.parametrize("one", ["dy", "residual"])
def test_axis_order_that_differs_from_x_is_rejected(one):
    b, case = batch(PLANES), BY_ID["residual-relu"]
    setattr(b, one, Form(PLANES.shape, order=(0, 2, 3, 1)).place(getattr(b, one)))
    order = r"in the order of x, which has strides \(3360, 672, 96, 4\); pass a copy in that order$"
    says = rf"^{one} has shape .*, {NOT_CONTIGUOUS}, {order}"
    with pytest.raises(ValueError, match=says):
        b.run(case)


def test_arrays_by_channel_may_have_any_stride():
    strides = (lambda v: spread(v, (3,)), lambda v: spread(v, (-1,)), lambda v: v.astype(np.float64))
    for name in ("residual-relu", "eval-residual-relu"):
        case = BY_ID[name]
        for stride in strides:
            b, c = batch(ROWS), batch(ROWS)
            names = ["gamma", "beta"] + ["running_mean", "running_var"] * (not case.training)
            for n in names:
                setattr(c, n, stride(getattr(c, n)))
            y, _, grads = c.run(case)
            y2, _, grads2 = b.run(case)
            assert image([y, grads.dx]) == image([y2, grads2.dx])
            np.testing.assert_allclose(grads.dgamma, grads2.dgamma, rtol=1e-7)


# ---- in place ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [ROWS, PLANES, Form((700, 3, 5))], ids=str)
@pytest.mark.parametrize("name", ["residual-relu", "affine", "eval-residual-relu"])
def test_in_place_gives_the_same_bits(name, form, dtype):
    case = BY_ID[name]
    b = batch(form, dtype)
    y, _, grads = b.run(case)
    targets = ["new", "x", *["residual"] * case.residual]
    for target in targets:
        c = batch(form, dtype)
        out = np.empty_like(c.x) if target == "new" else getattr(c, target)
        y2, saved = F.batch_norm_forward(c.x, **c.given(case), out=out)
        assert y2 is out
        assert image([y2]) == image([y])
        if target == "x":
            for refuse in (F.batch_norm_backward, F.batch_norm_backward_reduce):
                with refused(
                    ValueError,
                    "^x was overwritten by an earlier pass with out=x, but backward needs it",
                    [c.dy],
                ):
                    refuse(c.dy, saved)
            continue
        for name_ in ("dy", "x"):
            d = batch(form, dtype)
            _, saved = F.batch_norm_forward(d.x, **d.given(case))
            out = getattr(d, name_)
            again = F.batch_norm_backward(d.dy, saved, out=out)
            assert again.dx is out
            assert image(again) == image(grads)


def test_without_an_activation_the_residuals_gradient_is_dy_itself():
    b = batch(ROWS)
    _, _, grads = b.run(BY_ID["residual"])
    assert grads.dresidual is b.dy


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[:]], ids=["itself", "a view"])
def test_backward_after_dx_overwrote_x_raises(view):
    b = batch(ROWS)
    _, saved, grads = b.run(BY_ID["affine"])
    assert image([F.batch_norm_backward(b.dy, saved, out=view(b.x)).dx]) == image([grads.dx])
    assert saved.x is None
    sums = F.BatchNormSums(np.zeros(65), np.zeros(65))
    for refuse in (
        lambda: F.batch_norm_backward(b.dy, saved),
        lambda: F.batch_norm_backward_reduce(b.dy, saved),
        lambda: F.batch_norm_backward_apply(b.dy, saved, sums),
    ):
        with refused(
            ValueError,
            "^x was overwritten by an earlier pass with out=x, but backward needs it",
            [b.x, b.dy],
        ):
            refuse()


SAME = {"itself": lambda a: a, "another view of its memory": lambda a: a[:]}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [ROWS, PLANES, Form((700, 3, 5))], ids=str)
@pytest.mark.parametrize("name", ["residual", "eval-residual"])
@pytest.mark.parametrize("same", SAME)
def test_dresidual_is_kept_when_dx_overwrites_dy(same, name, form, dtype):
    b = batch(form, dtype)
    _, saved, grads = b.run(BY_ID[name])
    sums = F.batch_norm_backward_reduce(b.dy, saved)
    for backward, given in ((F.batch_norm_backward, []), (F.batch_norm_backward_apply, [sums])):
        dy = b.dy.copy(order="K")
        again = backward(dy, saved, *given, out=SAME[same](dy))
        assert image([dy, *again[1:]]) == image(grads)


def test_results_have_the_memory_layout_of_x():
    for order in ((0, 2, 3, 1), (3, 2, 1, 0)):
        b = batch(Form((4, 5, 6, 7), order=order))
        y, _, grads = b.run(BY_ID["residual-relu"])
        assert y.strides == b.x.strides == grads.dx.strides == grads.dresidual.strides


# ---- other libraries ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["residual-relu", "eval-residual-relu"])
def test_torch_tensors_go_in_and_come_out(name, dtype, torch):
    def tensor(a: np.ndarray):
        if a.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(a)

    def bits(t):
        return t.contiguous().view(torch.uint8).numpy().tobytes()

    b, c, case = batch(PLANES, dtype), batch(PLANES, dtype), BY_ID[name]
    y, _, grads = b.run(case)
    for field in vars(c):
        if field != "form":
            setattr(c, field, tensor(getattr(c, field)))
    y2, _, grads2 = c.run(case)
    for ours, theirs in zip((*grads, y, b.running_mean), (*grads2, y2, c.running_mean), strict=True):
        assert isinstance(theirs, torch.Tensor)
        assert bits(theirs) == ours.tobytes()
    last = tensor(b.x.copy()).contiguous(memory_format=torch.channels_last)
    y3, _ = F.batch_norm_forward(last)
    assert y3.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrap", [OnlyInterface, OnlyDLPack, OldDLPack])
def test_objects_with_an_array_protocol_are_accepted(wrap):
    b, c, case = batch(ROWS), batch(ROWS), BY_ID["residual-relu"]
    y, saved, grads = b.run(case)
    kept = c.running_mean, c.running_var
    for field in vars(c):
        if field != "form":
            setattr(c, field, wrap(getattr(c, field)))
    y2, saved2, grads2 = c.run(case)
    c.running_mean, c.running_var = kept
    assert result_image(c, y2, saved2, grads2) == result_image(b, y, saved, grads)


# ---- the arrays kept between forward and backward ----


def test_backward_raises_if_x_was_reshaped():
    """x is kept by reference, not copied."""
    x, dy = np.ones((6, 4), np.float32), np.ones((6, 4), np.float32)
    _, saved = F.batch_norm_forward(x)
    x.resize((12, 2), refcheck=False)
    for refuse in (F.batch_norm_backward, F.batch_norm_backward_reduce):
        for other in (dy, dy.reshape(12, 2)):
            with refused(
                ValueError, "^x was changed in shape, layout or dtype since the forward", [x, dy]
            ):
                refuse(other, saved)
    x.resize((6, 4), refcheck=False)
    F.batch_norm_backward(dy, saved)


def test_backward_raises_if_a_tensor_was_transposed(torch):
    x = torch.ones(4, 4)
    _, saved = F.batch_norm_forward(x)
    x.t_()
    with pytest.raises(ValueError, match=r"^x was changed in shape, layout or dtype since the forward"):
        F.batch_norm_backward(torch.ones(4, 4), saved)


def test_saved_arrays_are_referenced_and_released():
    b = batch(ROWS)
    arrays = [b.x, b.gamma, b.beta, b.residual, b.dy]
    before = reference_counts(arrays)
    _, saved, grads = b.run(BY_ID["residual"])
    kept = reference_counts(arrays)
    assert [after - was for after, was in zip(kept, before, strict=True)] == [1, 1, 1, 0, 1]
    del saved, grads  # without an activation, dresidual is dy itself
    assert reference_counts(arrays) == before


PEAK = """
import numpy as np
from fastopt import functional as F

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

def passes(shape):
    x, dy, residual, y, dx = (np.ones(shape, np.float32) for _ in range(5))
    open("/proc/self/clear_refs", "w").write("5")  # reset the peak
    before = status("VmRSS")
    for training in (True, False):
        running = np.zeros(shape[1]), np.ones(shape[1])
        options = dict(training=training, {options})
        _, saved = F.batch_norm_forward(x, None, None, *running, out=y, **options)
        F.batch_norm_backward(dy, saved, out=dx)
    return status("VmHWM") - before

passes((64, *{shape}[1:]))  # warm up: load code, allocate thread stacks
print(passes({shape}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc for the peak memory")
@pytest.mark.parametrize("shape", ["(1 << 16, 256)", "(256, 256, 256)", "(16384, 64, 16)"])
@pytest.mark.parametrize(
    ("options", "most"),
    # KiB besides five arrays of 65,536 KiB. ReLU keeps one bit per element: 2,048. Rows in blocks need two
    # doubles per channel and block, at most a sixteenth of an element's bytes: 2,048.
    [("eps=1e-5", 4096), ("residual=residual", 4096), ("activation='relu'", 7168)],
)
def test_passes_over_16_million_elements_make_no_array(shape, options, most):
    assert int(output(PEAK.format(shape=shape, options=options))) < most


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5)])
def test_dy_may_be_broadcast_over_the_batch(shape):
    x, row = np.random.default_rng(0).normal(size=(2, *shape))
    dy = np.broadcast_to(row[:1], shape)
    _, saved = F.batch_norm_forward(x)
    want = F.batch_norm_backward(dy.copy(), saved)
    for got, expected in zip(F.batch_norm_backward(dy, saved), want, strict=True):
        np.testing.assert_array_equal(got, expected)
