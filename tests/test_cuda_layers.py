"""BatchNorm and dropout give the same bits on a CUDA device as on the CPU, for every form, layout, dtype and
option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batch_norm_cases import BY_ID, CASES, FEW, FORMS, Batch, Case, Form, batch
from fastopt import functional as F
from layouts import GRADS, SHAPE, TARGETS, permuted, shifted, spread
from optimizers_table import DTYPES, bits, values

# Forms whose reduction tree has more than one level, with few values in the last block, for each code path.
LARGE = [
    Form((3, 2, 70, 71)),  # segments longer than a block
    Form((90, 7, 7, 7)),  # segments shorter than what a thread reads ahead
    Form((2, 1, 33_000)),
    Form((20_011, 2)),
    Form((701, 9), axis=-1),
    Form((300, 7, 8), axis=-1),  # whole vectors of channels, several blocks each
    Form((40, 3, 16, 16)),  # whole vectors of planes, and whole bytes
    Form((3000, 2, 3)),
    Form((64, 2, 16, 16)),  # in float32 more than 48 KiB per channel
    Form((40, 5, 14, 14)),  # half vectors in 16-bit dtypes
]


def to_device(device: Any, b: Batch) -> Batch:
    """Return the same batch on a device."""
    moved = {k: v if k == "form" else device.array(v) for k, v in vars(b).items()}
    return Batch(**moved)


def assert_agree(device: Any, host: Any, other: Any) -> None:
    """Assert equal bits, except for the bits of a NaN."""
    found = device.host(other) if hasattr(other, "__cuda_array_interface__") else np.asarray(other)
    assert found.dtype == host.dtype
    with np.errstate(invalid="ignore"):
        nan = np.isnan(host.astype(np.float64))
        assert (np.isnan(found.astype(np.float64)) == nan).all()
    assert bits(np.where(nan, host.dtype.type(0), found)) == bits(
        np.where(nan, host.dtype.type(0), host)
    )


def assert_passes_agree(device: Any, b: Batch, case: Case, **more: Any) -> None:
    """Compare everything that a forward and a backward pass return and change."""
    c = to_device(device, b)
    y, saved, grads = b.run(case, **more)
    y_there, saved_there, grads_there = c.run(case, **more)
    assert_agree(device, y, y_there)
    for name in ("mean", "var", "invstd"):
        assert_agree(device, getattr(saved, name), getattr(saved_there, name))
    for name in ("running_mean", "running_var"):
        assert_agree(device, getattr(b, name), getattr(c, name))
    for own, other in zip(grads, grads_there, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            assert_agree(device, own, other)


# ---- BatchNorm ----


@pytest.fixture(params=[2**40, 0], ids=["held", "in passes"])
def one_kernel_or_three(cuda, request):
    """Run one kernel, whose blocks hold their channels in shared memory, or three kernels."""
    cuda.hold(request.param)
    yield
    cuda.hold(2**40)


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS + LARGE, ids=str)
def test_forms(cuda, form, dtype):
    for case, small in (("residual-relu", None), ("affine", "float32")):
        assert_passes_agree(cuda, batch(form, dtype, small), BY_ID[case], single_value="zero_var")


# Planes of which this many blocks must hold a channel together, if a block can hold this fraction of it.
TOGETHER = [
    (Form((3, 2, 70, 72)), 2, 0.62),
    (Form((2, 1, 13_000)), 2, 0.7),  # with a shorter last block
    (Form((64, 2, 16, 16)), 2, 0.62),
    (Form((7, 1, 64, 64)), 3, 0.45),
]
SUMS = 2560  # additional bytes for the sums of threads; a block of the tree takes 1024


@pytest.fixture(params=[1, 2, 8])
def clusters(cuda, request):
    """Limit clusters to this number of blocks."""
    if not cuda.cluster(request.param):
        pytest.skip("this device, or this build for it, has no clusters")
    yield request.param
    cuda.cluster(8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("form", "blocks", "part"), TOGETHER, ids=str)
def test_forms_in_clusters(cuda, clusters, form, blocks, part, dtype):
    b = batch(form, dtype)
    channels = b.x.shape[form.axis]
    cuda.hold(int(part * b.x.nbytes / channels) + SUMS)
    counts = cuda.name == "shim"
    if counts:
        cuda.lib.shim_set_processors(blocks * channels)
        cuda.counts()
    for case, small in (("residual-relu", None), ("affine", "float32")):
        assert_passes_agree(cuda, batch(form, dtype, small), BY_ID[case], single_value="zero_var")
    cuda.hold(2**40)
    if counts:
        cuda.lib.shim_set_processors(4)
        used = cuda.counts()["clustered"]  # in the forward passes
        assert used == (2 if clusters >= blocks else 0)


@pytest.mark.parametrize(("form", "blocks", "part"), TOGETHER, ids=str)
def test_no_clusters_if_they_cannot_all_run_at_once(cuda, form, blocks, part):
    if cuda.name != "shim":
        pytest.skip("only the shim counts launches")
    x = batch(form).x
    channels = x.shape[form.axis]
    cuda.hold(int(part * x.nbytes / channels) + SUMS)
    cuda.lib.shim_set_processors(blocks * channels - 1)
    cuda.counts()
    F.batch_norm_forward(cuda.array(x), axis=form.axis)
    used = cuda.counts()["clustered"]
    cuda.lib.shim_set_processors(4)
    cuda.hold(2**40)
    assert used == 0


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("form", FEW, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_options(cuda, case, form):
    assert_passes_agree(cuda, batch(form, "float16", small="float64"), case)


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("form", FEW, ids=str)
def test_nonfinite_values(cuda, form, value):
    b = batch(form)
    b.x[1, 0], b.dy[0, 1] = value, value
    with np.errstate(all="ignore"):
        assert_passes_agree(cuda, b, BY_ID["residual-relu"])


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FEW, ids=str)
def test_unaligned_arrays(cuda, form, dtype):
    b = batch(form, dtype)
    for k, name in enumerate(("x", "residual", "dy", "gamma", "running_var")):
        a = getattr(b, name)
        setattr(b, name, shifted(a, (2 * k + 1) * a.itemsize % 64))
    assert_passes_agree(cuda, b, BY_ID["residual-relu"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_with_so_many_blocks_that_a_thread_sums_all_quarters_of_one(cuda, dtype):
    """More than two blocks of threads for each of 132 processors; the shim has four processors."""
    for case in ("affine", "residual-relu"):
        assert_passes_agree(cuda, batch(Form((70_000, 33)), dtype), BY_ID[case])


@pytest.mark.parametrize(
    "shape", [(270_000, 17), (1024 * 16384 - 3, 1), (1024 * 16384 + 5, 1)], ids=str
)
def test_groups_of_blocks_are_combined_in_fours(cuda, shape):
    """256 threads combine 1,024 groups of a channel; if there are more, four become one first."""
    x = np.random.default_rng(4).standard_normal(shape, np.float32)
    for own, other in zip(F.batch_norm_moments(x), F.batch_norm_moments(cuda.array(x)), strict=True):
        assert_agree(cuda, np.asarray(own), other)


def strided(a: np.ndarray) -> np.ndarray:
    """Return an array that is equal to `a`, with gaps around its samples and its channels."""
    return spread(a, (2, *(1,) * (a.ndim - 1)))


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("which", ["x", "residual", "dy", "x dy", "x residual dy"])
@pytest.mark.parametrize("form", [*FEW, Form((5, 3, 2, 11, 13)), Form((2, 9, 4, 6))], ids=str)
def test_strided_arrays(cuda, form, which):
    """Each array has strides of its own. Backward finds the bits of ReLU whatever the strides in forward
    were."""
    b = batch(form)
    for name in which.split():
        setattr(b, name, strided(getattr(b, name)))
    assert_passes_agree(cuda, b, BY_ID["residual-relu"])


def test_axes_that_merge_in_forward_but_not_in_backward(cuda):
    b = batch(Form((4, 5, 6, 7)))
    b.dy = spread(b.dy, (1, 1, 2, 1))
    assert_passes_agree(cuda, b, BY_ID["residual-relu"])
    b = batch(Form((4, 6, 7, 5), axis=-1))
    b.dy = spread(b.dy, (1, -2, 1, 1))
    assert_passes_agree(cuda, b, BY_ID["residual-relu"])


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("name", ["x", "residual"])
@pytest.mark.parametrize("form", FEW, ids=str)
def test_in_place(cuda, form, name):
    b = batch(form)
    c, case = to_device(cuda, b), BY_ID["residual-relu"]
    for of in (b, c):
        F.batch_norm_forward(of.x, **of.given(case), out=getattr(of, name))
    assert_agree(cuda, getattr(b, name), getattr(c, name))


@pytest.mark.usefixtures("one_kernel_or_three")
@pytest.mark.parametrize("case", ["residual", "residual-relu"])
@pytest.mark.parametrize("form", FEW, ids=str)
def test_dx_in_place_of_dy(cuda, form, case):
    b = batch(form)
    c = to_device(cuda, b)
    grads = []
    for of in (b, c):
        _, saved = F.batch_norm_forward(of.x, **of.given(BY_ID[case]))
        grads.append(F.batch_norm_backward(of.dy, saved, out=of.dy))
    assert_agree(cuda, b.dy, c.dy)
    assert_agree(cuda, *(g.dresidual for g in grads))


@pytest.mark.parametrize("form", FEW, ids=str)
def test_partial_statistics_and_sums(cuda, form):
    """Statistics and sums are computed in parts and passed in, as for a batch on several devices."""
    b = batch(form)
    results = []
    for of in (b, to_device(cuda, b)):
        moments = F.batch_norm_join([F.batch_norm_moments(a) for a in (of.x, of.residual)])
        y, saved = F.batch_norm_apply(of.x, moments, of.gamma, of.beta, activation="relu")
        sums = F.batch_norm_backward_reduce(of.dy, saved)
        results.append([y, *moments[1:], *sums, *F.batch_norm_backward_apply(of.dy, saved, sums)])
    for own, other in zip(*results, strict=True):
        if own is not None:
            assert_agree(cuda, own, other)


def test_empty_arrays(cuda):
    for shape in ((0, 3, 4), (2, 3, 0), (2, 0, 4)):
        b = batch(Form((2, 3, 4)))
        for name in ("x", "dy", "residual"):
            setattr(b, name, np.zeros(shape, np.float32))
        channels = shape[1]
        for name in ("gamma", "beta", "running_mean", "running_var"):
            setattr(b, name, np.ones(channels, np.float32))
        assert_passes_agree(cuda, b, BY_ID["residual-relu"])


@pytest.mark.parametrize(
    ("form", "most", "launches"),
    [
        (Form((4, 5, 6, 8)), 2**40, (1, 1)),
        (
            Form((4, 6, 7, 8), axis=-1),
            2**40,
            (3, 1),
        ),  # float32, four channels per block: half a byte of bits
        (Form((4, 5, 6, 7)), 2**40, (3, 1)),  # bytes whose bits belong to two channels
        (Form((4, 5, 6, 7)), 0, (3, 3)),
        (Form((4, 5, 400, 80)), 2**40, (3, 3)),  # more than a block can hold
    ],
    ids=str,
)
def test_layer_takes_at_most_three_launches_and_no_synchronization(cuda, form, most, launches):
    if cuda.name != "shim":
        pytest.skip("only the shim counts launches")
    cuda.hold(most)
    c = to_device(cuda, batch(form))
    cuda.counts()
    _, saved = F.batch_norm_forward(
        c.x, c.gamma, c.beta, activation="relu", axis=form.axis, out=c.residual
    )
    forward = cuda.counts()
    grads = F.batch_norm_backward(c.dy, saved, out=c.residual)  # kept: freeing an array would wait
    backward = cuda.counts()
    cuda.hold(2**40)
    assert grads.dx is c.residual
    for counts, number in zip((forward, backward), launches, strict=True):
        assert (counts["launches"], counts["synchronisations"], counts["copies"]) == (number, 0, 0)


def test_strided_layers_take_no_additional_launches(cuda):
    if cuda.name != "shim":
        pytest.skip("only the shim counts launches")
    c = to_device(cuda, batch(Form((4, 5, 6, 7))))
    x = cuda.array(strided(np.ones((4, 5, 6, 7), np.float32)))
    cuda.counts()
    F.batch_norm_forward(x, out=c.residual)
    assert cuda.counts()["launches"] == 3


# ---- dropout ----


def test_dropout_takes_one_launch_and_no_synchronization(cuda):
    if cuda.name != "shim":
        pytest.skip("only the shim counts launches")
    x, y = (cuda.array(np.ones((4, 5), np.float32)) for _ in range(2))
    cuda.counts()
    F.dropout_forward(x, 0.5, seed=1, out=y)
    counts = cuda.counts()
    assert (counts["launches"], counts["synchronisations"], counts["copies"]) == (1, 0, 0)


OPTIONS = {
    "plain": {},
    "channels": {"channel_axis": 2},
    "last channels": {"channel_axis": -1},
    "alpha": {"alpha": True},
    "test-time training": {"scaling": "test_time"},
    "evaluation": {"training": False, "scaling": "test_time"},
    "identity": {"training": False},
}
SEED = {"seed": 0x1234_5678_9ABC_DEF0, "offset": 2**63 + 5}


def dropped(x, residual, bias, p, out=None, **options) -> tuple[Any, Any]:
    y, saved = F.dropout_forward(x, p, residual=residual, bias=bias, out=out, **{**SEED, **options})
    return y, F.dropout_backward(x, saved)


@pytest.mark.parametrize("start", [0, 2**40 + 4, 3])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout(cuda, dtype, options, p, start):
    for shape in ((3, 5, 8, 16), (2, 3, 5, 7)):  # with and without whole vectors
        x, residual, bias = (
            values(s, DTYPES[dtype], k) for k, s in enumerate((shape, shape, shape[-1]))
        )
        x.flat[3], x.flat[-1] = np.inf, np.nan  # a product with a mask would be NaN; a select is not
        for more in ((None, None), (residual, bias), (None, bias.astype(np.float32))):
            options_here = {**OPTIONS[options], "start": start}
            moved = [a if a is None else cuda.array(a) for a in (x, *more)]
            for own, other in zip(
                dropped(x, *more, p, **options_here),
                dropped(*moved, p, **options_here),
                strict=True,
            ):
                assert_agree(cuda, own, other)


@pytest.mark.parametrize("n", [0, 1, 7, 2048, 2049, 100_003])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths(cuda, dtype, n):
    x = values(n, DTYPES[dtype])
    for own, other in zip(
        dropped(x, None, None, 0.5), dropped(cuda.array(x), None, None, 0.5), strict=True
    ):
        assert_agree(cuda, own, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_of_unaligned_arrays(cuda, dtype):
    """Each array in turn is unaligned and the others are aligned; without that, all would be whole
    vectors."""
    shape = (16, 32)
    arrays = [values(s, DTYPES[dtype], k) for k, s in enumerate((shape, shape, shape[-1]))]
    for moved in range(4):
        here = [shifted(a, a.itemsize if k == moved else 0) for k, a in enumerate(arrays)]
        out = shifted(np.zeros_like(arrays[0]), arrays[0].itemsize if moved == 3 else 0)
        there_ = [cuda.array(a) for a in (*here, out)]
        dropped(*here, 0.3, out=out)
        dropped(*there_[:3], 0.3, out=there_[3])
        assert_agree(cuda, out, there_[3])


READ = {
    k: v
    for k, v in GRADS.items()
    if k not in ("1 byte off", "3 bytes off", "field of packed structures")
}
WRITTEN = {k: v for k, v in TARGETS.items() if k in READ}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", READ)
def test_dropout_of_any_layout(cuda, layout, dtype):
    x, residual, bias = (values(s, DTYPES[dtype], k) for k, s in enumerate((SHAPE, SHAPE, SHAPE[-1])))
    for options in (OPTIONS["plain"], OPTIONS["channels"]):
        for a, r in ((READ[layout](x), residual), (x, READ[layout](residual))):
            here, moved = (a, r, bias[::-1]), [cuda.array(each) for each in (a, r, bias[::-1])]
            for own, other in zip(
                dropped(*here, 0.3, **options), dropped(*moved, 0.3, **options), strict=True
            ):
                assert_agree(cuda, own, other)


@pytest.mark.parametrize("layout", WRITTEN)
def test_dropout_into_any_layout(cuda, layout):
    x, residual, out = (
        values(SHAPE),
        values(SHAPE, seed=1),
        WRITTEN[layout](np.zeros(SHAPE, np.float32)),
    )
    moved = [cuda.array(a) for a in (x, residual, out)]
    dropped(x, residual, None, 0.3, out=out)
    dropped(moved[0], moved[1], None, 0.3, out=moved[2])
    assert_agree(cuda, out, moved[2])
    same = permuted(x, (3, 0, 2, 1)) if "permuted" in layout else x.copy()
    own, there_ = same.copy(order="K"), cuda.array(same)
    dropped(own, None, None, 0.3, out=own)
    dropped(there_, None, None, 0.3, out=there_)
    assert_agree(cuda, own, there_)
