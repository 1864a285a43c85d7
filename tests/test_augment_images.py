"""Image augmentation: each function against a plain loop over samples, for any split into batches, both layouts
and all libraries; and the distributions of the random draws."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from array_libraries import each_library
from fastopt.data import augment
from fastopt.data.augment._geometric import rotate_images
from fastopt.data.augment._intensity import symmetric_beta

INDEX = np.array([7, 0, 3, 2**32 - 1, 12, 4])
SEED, EPOCH = 11, 2


def images(dtype=np.float32, channels=3, count=6):
    x = np.random.default_rng(4).uniform(size=(count, channels, 7, 8))
    return (x * 255).astype(dtype) if np.dtype(dtype).kind in "iu" else x.astype(dtype)


def draws(index=INDEX, seed=SEED, epoch=EPOCH):
    return augment.Draws(index, seed=seed, epoch=epoch)


X_ALL, Y_ALL = images(count=20), np.eye(20, 5, dtype=np.float32)

FUNCTIONS = {
    "crop": lambda x, d, **o: augment.crop(x, d, padding=2, **o),
    "crop to size": lambda x, d, **o: augment.crop(x, d, padding=1, size=(5, 4), fill=2, **o),
    "flip": lambda x, d, **o: augment.flip(x, d, **o),
    "flip vertical": lambda x, d, **o: augment.flip(x, d, axis="vertical", **o),
    "rotate": lambda x, d, **o: augment.rotate(x, d, degrees=30, fill=0.5, **o),
    "jitter": lambda x, d, **o: augment.jitter(x, d, **o),
    "cutout": lambda x, d, **o: augment.cutout(x, d, size=3, **o),
    "noise": lambda x, d: augment.noise(x, d),
    "mixup": lambda x, d: augment.mixup(x, x[:, 0, 0, :5], d, others=(X_ALL, Y_ALL))[0],
}
MOVING = ("crop", "crop to size", "flip", "flip vertical", "cutout")
WITH_LAYOUT = [name for name in FUNCTIONS if name not in ("noise", "mixup")]
each_function = pytest.mark.parametrize("name", FUNCTIONS)


# ---- the result for a sample depends only on its index ----


@each_function
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]])
@pytest.mark.parametrize("cuts", [[], [1, 4], [1, 2, 3, 4, 5]])
def test_any_split_into_batches_gives_the_same(name, order, cuts):
    x, f = images(), FUNCTIONS[name]
    whole = f(x, draws())
    parts = [f(x[part], draws(INDEX[part])) for part in np.split(np.array(order), cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[order])


@each_function
def test_seed_epoch_and_sample_change_it(name):
    x, f = np.repeat(images(count=1), 6, axis=0), FUNCTIONS[name]
    results = [f(x, draws(seed=s, epoch=e)) for s, e in ((1, 0), (1, 1), (2, 0))]
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert any(not np.array_equal(results[0][0], other) for other in results[0][1:])


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if name != "mixup"]
)  # tested with its own arguments below
@each_library
def test_libraries_agree(name, library):
    x = images()
    found = library.host(FUNCTIONS[name](library.array(x), draws(library.array(INDEX))))
    np.testing.assert_allclose(found, FUNCTIONS[name](x, draws()), rtol=1e-6, atol=1e-6)
    if name in MOVING:
        np.testing.assert_array_equal(found, FUNCTIONS[name](x, draws()))


@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_layouts_agree(name):
    x = images()
    last = FUNCTIONS[name](x.transpose(0, 2, 3, 1), draws(), layout="NHWC")
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), FUNCTIONS[name](x, draws()))


@each_function
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_dtype_is_kept_and_input_is_not_written(name, dtype):
    x = images(dtype)
    x.flags.writeable = False
    if dtype == np.uint8 and name not in MOVING:
        with pytest.raises(TypeError, match=r"^(images|x) has dtype uint8, expected float16"):
            FUNCTIONS[name](x, draws())
    else:
        y = FUNCTIONS[name](x, draws())
        assert (y.dtype, y.shape[:2]) == (dtype, x.shape[:2])


@pytest.mark.parametrize("name", ["rotate", "jitter", "noise", "mixup"])
def test_16_bits_are_computed_in_float32_and_rounded_once(name):
    x, f = images(np.float16), FUNCTIONS[name]
    if name == "mixup":
        f = lambda x, d: augment.mixup(x, x, d, others=(x, x))[0]  # noqa: E731
    np.testing.assert_array_equal(f(x, draws()), f(x.astype(np.float32), draws()).astype(np.float16))


@each_function
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_numpys_error_settings_do_not_matter(name, dtype):
    x = images(dtype) * dtype(1e-3)
    expected = FUNCTIONS[name](x, draws())
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(FUNCTIONS[name](x, draws()), expected)


@pytest.mark.parametrize("alpha", [1e-3, 1e300])
def test_mixup_with_extreme_alpha_raises_no_numpy_errors(alpha):
    index = np.arange(200)
    x = np.ones((200, 2))
    with np.errstate(all="raise"):
        y, _ = augment.mixup(x, x, draws(index), others=(x * 2, x), alpha=alpha)
    assert ((y >= 1) & (y <= 2)).all()


@each_function
def test_an_empty_batch_stays_empty(name):
    assert len(FUNCTIONS[name](images()[:0], draws(INDEX[:0]))) == 0


# ---- each function against a loop ----


def test_crop_is_a_window_of_the_padded_image():
    x = images()
    y = augment.crop(x, draws(), padding=2, fill=9.0)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=9.0)
    for before, after in zip(padded, y, strict=True):
        places = [(i, j) for i in range(5) for j in range(5)]
        assert any(np.array_equal(before[:, i : i + 7, j : j + 8], after) for i, j in places)


def test_crop_positions_are_equally_likely():
    """25 positions and 10,000 samples: chi-squared with 24 degrees of freedom, standard deviation 6.9."""
    x = np.zeros((10000, 1, 5, 5), np.int8)
    x[:, 0, 2, 2] = 1
    y = augment.crop(x, draws(np.arange(10000)), padding=2)
    counts = y[:, 0].sum(axis=0)
    assert counts.sum() == 10000
    assert ((counts - 400) ** 2 / 400).sum() < 24 + 4 * 6.9


@pytest.mark.parametrize(("axis", "numpys"), [("horizontal", 3), ("vertical", 2)])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_flip_mirrors_with_probability_p(axis, numpys, p):
    x = np.random.default_rng(0).normal(size=(2000, 1, 3, 3))
    y = augment.flip(x, draws(np.arange(2000)), p=p, axis=axis)
    mirrored = (y == np.flip(x, numpys)).all(axis=(1, 2, 3))
    same = (y == x).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - p) <= 4 * math.sqrt(p * (1 - p) / 2000)


def test_horizontal_and_vertical_flips_are_independent():
    ramp = np.tile(np.arange(4.0).reshape(1, 1, 2, 2), (2000, 1, 1, 1))
    across = augment.flip(ramp, draws(np.arange(2000)))[:, 0, 0, 0] == 1
    down = augment.flip(ramp, draws(np.arange(2000)), axis="vertical")[:, 0, 0, 0] == 2
    assert abs((across & down).mean() - 0.25) < 4 * math.sqrt(0.1875 / 2000)


@pytest.mark.parametrize("quarters", [-3, -1, 0, 1, 2])
@each_library
def test_a_quarter_turn_is_exact(quarters, library):
    x = images()[:, :, :, :7]
    y = library.host(rotate_images(library.array(x), np.full(6, quarters / 2), 0.0))
    np.testing.assert_array_equal(y, np.rot90(x, quarters, axes=(2, 3)))


def test_rotation_interpolates_linearly():
    """An image that is linear in both coordinates is rotated exactly, except near the edge."""
    rows, columns = np.mgrid[0:21, 0:21] - 10.0
    x = (2 * rows + 3 * columns).reshape(1, 1, 21, 21)
    turn = 0.1
    c, s = math.cos(math.pi * turn), math.sin(math.pi * turn)
    expected = 2 * (s * columns + c * rows) + 3 * (c * columns - s * rows)
    y = rotate_images(x, np.array([turn]), math.nan)[0, 0]
    inside = np.hypot(rows, columns) < 9
    np.testing.assert_allclose(y[inside], expected[inside], atol=1e-12)


def test_rotation_against_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images(np.float64, count=1)
    y = rotate_images(x, np.array([20 / 180]), 0.0)
    expected = ndimage.rotate(
        x[0, 0], 20, reshape=False, order=1, mode="grid-constant", prefilter=False
    )
    np.testing.assert_allclose(y[0, 0], expected, atol=1e-12)


def test_angles_are_uniform():
    """Angles are recovered from the new position of a point far from the center."""
    x = np.zeros((2000, 1, 41, 41))
    x[:, 0, 18:23, 38:41] = 1.0
    y = augment.rotate(x, draws(np.arange(2000)), degrees=60)[:, 0]
    rows, columns = np.mgrid[0:41, 0:41] - 20.0
    angle = np.degrees(np.arctan2(-(y * rows).sum((1, 2)), (y * columns).sum((1, 2))))
    assert abs(angle).max() < 61
    assert abs(angle.mean()) < 4 * 60 / math.sqrt(3 * 2000)
    assert angle.std() == pytest.approx(60 / math.sqrt(3), rel=0.05)


def test_jitter_matches_its_formula():
    x = images(np.float64)
    y = augment.jitter(x, draws(), brightness=0.5, contrast=0.4, saturation=1.5, limits=None)
    low, high = np.array([0.5, 0.6, 0.0]), np.array([1.5, 1.4, 2.5])
    for before, after, u in zip(x, y, draws().uniforms("jitter", 3), strict=True):
        bright, sharp, full = low + (high - low) * u
        luma = np.array([0.299, 0.587, 0.114])[:, None, None]
        z = before * bright
        z = (luma * z).sum(0).mean() * (1 - sharp) + z * sharp
        z = (luma * z).sum(0) * (1 - full) + z * full
        np.testing.assert_allclose(after, z, rtol=1e-12)


def test_jitter_can_be_limited_and_turned_off():
    y = augment.jitter(images(), draws(), brightness=5.0)
    assert y.min() >= 0.0
    assert y.max() == 1.0
    x = images(channels=2)
    off = augment.jitter(x, draws(), brightness=0, contrast=0, saturation=0)
    np.testing.assert_array_equal(off, x)
    assert not np.array_equal(augment.jitter(x, draws(), saturation=0), x)


def test_contrast_keeps_the_mean_of_images_without_colors():
    x = images(np.float64, channels=1)
    y = augment.jitter(x, draws(), brightness=0.0, contrast=0.5, saturation=0.0, limits=None)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), x.mean(axis=(1, 2, 3)))
    assert not np.allclose(y, x)


def test_limits_may_be_equal():
    assert (augment.jitter(images(), draws(), limits=(0.5, 0.5)) == 0.5).all()


def test_jitter_of_images_without_channels():
    assert augment.jitter(images(channels=0), draws(), saturation=0).shape == (6, 0, 7, 8)


def test_noise_is_normal_and_independent():
    y = augment.noise(np.ones((40, 5000), np.float32), draws(np.arange(40)), std=0.5) - 1.0
    assert abs(y.mean()) < 4 * 0.5 / math.sqrt(y.size)
    assert abs(y.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * y.size)
    assert np.abs(np.corrcoef(y)[np.triu_indices(40, 1)]).max() < 5 / math.sqrt(5000)


def test_cutout_is_one_square_that_may_reach_over_the_edge():
    y = augment.cutout(np.ones((3000, 2, 6, 7)), draws(np.arange(3000)), size=3, fill=0.0)
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    hole = y[:, 0] == 0
    heights, widths = hole.any(2).sum(1), hole.any(1).sum(1)
    np.testing.assert_array_equal(hole.sum((1, 2)), heights * widths)
    assert set(heights) == set(widths) == {2, 3}
    # Every pixel is equally often the center: a corner is covered by 4 of 42 centers, the middle by 9.
    assert abs(hole[:, 0, 0].mean() - 4 / 42) < 4 * math.sqrt(4 / 42 / 3000)
    assert abs(hole[:, 3, 3].mean() - 9 / 42) < 4 * math.sqrt(9 / 42 / 3000)


@each_library
def test_mixup_uses_the_same_shares_for_samples_and_targets(library):
    """With one-hot samples, the result shows the share and the partner."""
    each = np.eye(20)
    x, y = augment.mixup(
        library.array(each[:6]),
        library.array(each[:6].astype(np.float32)),
        draws(),
        others=(library.array(each), library.array(each.astype(np.float32))),
        alpha=1.0,
    )
    x, y = library.host(x), library.host(y)
    np.testing.assert_allclose(x, y, rtol=1e-6)
    np.testing.assert_allclose(x.sum(axis=1), 1.0)
    partner = np.floor(draws().uniforms("mixup", 3)[:, 2] * 20).astype(int)
    for i in range(6):
        assert set(np.flatnonzero(x[i])) <= {i, partner[i]}


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 30.0])
def test_mixups_shares_are_beta_distributed(alpha):
    """Kolmogorov-Smirnov distance from SciPy's distribution."""
    special = pytest.importorskip("scipy.special")
    u = draws(np.arange(4000)).uniforms("mixup", 2)
    share = np.sort(symmetric_beta(alpha, u[:, 0], u[:, 1]))
    assert 0 <= share[0] <= share[-1] <= 1
    distance = np.abs(special.betainc(alpha, alpha, share) - (np.arange(4000) + 0.5) / 4000)
    distance[(share == 0) | (share == 1)] = 0  # steps, because a double has no finer values there
    assert distance.max() < 1.95 / math.sqrt(4000)


def test_mixup_from_a_memory_map(tmp_path):
    stored = np.memmap(tmp_path / "x", np.float32, "w+", shape=X_ALL.shape)
    stored[:] = X_ALL
    x, y = images(), np.eye(6, 5, dtype=np.float32)
    found = augment.mixup(x, y, draws(), others=(stored, Y_ALL))
    expected = augment.mixup(x, y, draws(), others=(X_ALL, Y_ALL))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixup_of_empty_batches():
    x = np.ones((0, 2))
    assert augment.mixup(x, x, augment.Draws([]), others=(x, x))[0].shape == (0, 2)


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_the_default_fill_suits_other_dtypes(dtype):
    assert augment.crop(np.ones((6, 1, 4, 4), dtype), draws()).dtype == dtype


# ---- invalid arguments ----

X, D = images(), draws()
BYTES = np.zeros(X.shape, np.uint8)


@each_library
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint8", 255),
        ("uint8", 7.0),
        ("int64", -(2**63)),
        ("bool", True),
        ("float32", 0.5),
        ("float64", np.inf),
        ("float16", 65504),
        ("float16", -np.inf),
    ],
)
def test_fill_that_the_dtype_can_represent_is_used(dtype, fill, library):
    images = library.array(np.zeros(X.shape, dtype))
    y = library.host(augment.crop(images, D, padding=9, fill=fill))
    assert y.dtype == dtype
    assert {v.item() for v in np.unique(y)} == {0, fill}


MASKED = np.ma.array(X, mask=X > 0)
INVALID = {
    "a mask": (lambda: augment.flip(MASKED, D), TypeError, "images has a mask, expected a plain array"),
    "a mask to compute with": (lambda: augment.noise(MASKED, D), TypeError, "images has a mask, expec"),
    "axes": (lambda: augment.flip(X[0], D), ValueError, r"images has shape \(3, 7, 8\), expected 4"),
    "number": (lambda: augment.flip(X[:2], D), ValueError, "images has 2 samples, but draws has 6"),
    "noise number": (lambda: augment.noise(X[:2], D), ValueError, "images has 2 samples, but draws"),
    "no draws": (lambda: augment.flip(X, 3), TypeError, "draws has type int, expected augment.Draws"),
    "a list": (lambda: augment.flip([1], D), TypeError, "images has type list, expected an array"),
    "a layout": (lambda: augment.flip(X, D, layout="CHW"), ValueError, "layout must be one of 'NCHW'"),
    "p": (lambda: augment.flip(X, D, p=2), ValueError, r"p must lie in \[0, 1\], got 2"),
    "axis": (lambda: augment.flip(X, D, axis=1), ValueError, "axis must be one of 'horizontal', "),
    "padding": (lambda: augment.crop(X, D, padding=-1), ValueError, "padding must be 0 or more"),
    "size": (lambda: augment.crop(X, D, size=(99, 1)), ValueError, r"size is \(99, 1\), but padded"),
    "width": (lambda: augment.crop(X, D, size=(7, 17)), ValueError, r"size is \(7, 17\), but padded"),
    "no size": (lambda: augment.crop(X, D, size=3), ValueError, "size must be a pair, got 3"),
    "limits": (lambda: augment.jitter(X, D, limits=1.0), ValueError, "limits must be a pair, got 1.0"),
    "no limit": (
        lambda: augment.jitter(X, D, limits=(np.nan, 1)),
        ValueError,
        r"limits\[0\] must lie in \[-inf, inf\], got nan",
    ),
    "words for limits": (
        lambda: augment.jitter(X, D, limits=("a", "b")),
        TypeError,
        r"limits\[0\] must be a number, got 'a'",
    ),
    "limits in reverse": (
        lambda: augment.jitter(X, D, limits=(1.0, 0.0)),
        ValueError,
        r"limits must be \(low, high\) with low <= high, got \(1.0, 0.0\)",
    ),
    "nobody to mix with": (
        lambda: augment.mixup(X, X, D, others=(X[:0], X[:0])),
        ValueError,
        "others has no samples, expected one or more",
    ),
    "no others": (lambda: augment.mixup(X, X, D, others=None), ValueError, "others must be a pair"),
    "fill for bytes": (
        lambda: augment.crop(BYTES, D, fill=300),
        ValueError,
        "fill is 300, which images of dtype uint8 cannot hold",
    ),
    "fill below 0": (
        lambda: augment.cutout(BYTES, D, size=1, fill=-1),
        ValueError,
        "fill is -1, which",
    ),
    "half a fill": (lambda: augment.crop(BYTES, D, fill=0.5), ValueError, "fill is 0.5, which images"),
    "fill NaN": (lambda: augment.crop(BYTES, D, fill=np.nan), ValueError, "fill is nan, which images"),
    "large fill": (
        lambda: augment.crop(BYTES.astype(np.int64), D, fill=np.float64(2**63)),
        ValueError,
        "fill is .*, which images of dtype int64 cannot hold",
    ),
    "fill for 16 bits": (
        lambda: augment.crop(X.astype(np.float16), D, fill=1e6),
        ValueError,
        "fill is 1000000.0, which images of dtype float16 cannot hold",
    ),
    "fill for 16 other bits": (
        lambda: augment.crop(X.astype(ml_dtypes.bfloat16), D, fill=3.4e38),
        ValueError,
        r"fill is 3.4e\+38, which images of dtype bfloat16 cannot hold",
    ),
    "fill beyond floats": (
        lambda: augment.rotate(X, D, fill=-(10**400)),
        ValueError,
        "fill is -1000.*, which images of dtype float32 cannot hold",
    ),
    "fill for switches": (
        lambda: augment.crop(X > 0, D, fill=2),
        ValueError,
        "fill is 2, which images",
    ),
    "no fill": (lambda: augment.crop(X, D, fill=None), TypeError, "fill must be a number, got None"),
    "no fill, rotated": (lambda: augment.rotate(X, D, fill="0"), TypeError, "fill must be a number"),
    "no fill, cut": (
        lambda: augment.cutout(BYTES, D, size=1, fill=None),
        TypeError,
        "fill must be a n",
    ),
    "degrees": (lambda: augment.rotate(X, D, degrees=200), ValueError, r"degrees must lie in \[0, 180"),
    "hole": (lambda: augment.cutout(X, D, size=0), ValueError, "size must be 1 or more"),
    "std": (lambda: augment.noise(X, D, std=-1), ValueError, r"std must lie in \[0, inf\)"),
    "contrast": (lambda: augment.jitter(X, D, contrast=-1), ValueError, "contrast must lie in"),
    "channels": (lambda: augment.jitter(X[:, :2], D), ValueError, "images has 2 channels, but satu"),
    "alpha": (
        lambda: augment.mixup(X, X, D, others=(X, X), alpha=0),
        ValueError,
        r"alpha must lie in \(0, inf\), got 0",
    ),
    "labels": (
        lambda: augment.mixup(X, np.arange(6), D, others=(X, np.arange(6))),
        TypeError,
        "y has dtype int64, expected float16",
    ),
    "others": (
        lambda: augment.mixup(X, X, D, others=(X, X[:, :1])),
        ValueError,
        r"others\[1\] has samples of shape \(1, 7, 8\), but y has \(3, 7, 8\)",
    ),
    "fewer others": (
        lambda: augment.mixup(X, X, D, others=(X, X[:2])),
        ValueError,
        r"others\[1\] has 2 samples, but others\[0\] has 6",
    ),
    "draws to mix with": (
        lambda: augment.mixup(X, X, draws([0]), others=(X, X)),
        ValueError,
        "x has 6 samples, but draws has 1",
    ),
    "a masked index": (
        lambda: draws(np.ma.array([1, 2], mask=[True, False])),
        TypeError,
        "index has a mask, expected a plain array",
    ),
    "index above": (lambda: draws([2**32]), ValueError, r"index has numbers outside \[0, 2\*\*32\)"),
    "one index": (lambda: draws(5), TypeError, r"index has shape \(\) and dtype int64, expected integ"),
    "no index": (lambda: draws(None), TypeError, r"index has shape \(\) and dtype object, expected"),
    "index": (lambda: draws(np.zeros(3)), TypeError, r"index has shape \(3,\) and dtype float64"),
    "index below 0": (lambda: draws([-1]), ValueError, r"index has numbers outside \[0, 2\*\*32\)"),
    "seed": (lambda: draws(seed=-1), ValueError, r"seed must lie in \[0, 2\*\*64\), got -1"),
    "epoch": (lambda: draws(epoch=2**48), ValueError, r"epoch must lie in \[0, 2\*\*48\)"),
    "stream": (lambda: D.uniforms("x", 1), ValueError, "name must be one of 'minibatches', 'crop'"),
}


@pytest.mark.parametrize(("call", "kind", "says"), INVALID.values(), ids=INVALID)
def test_invalid_arguments_raise(call, kind, says):
    with pytest.raises(kind, match="^" + says):
        call()
