"""Initial weights: ranges, variances and distributions; the same values in every dtype, layout and library;
each call consumes one offset, and a rejected call consumes none."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

import fastopt
from array_libraries import each_library
from fastopt import _random, init

# The variance given in the source, for m inputs and n outputs.
VARIANCES = {
    "xavier_uniform": lambda m, n: 2 / (m + n),
    "xavier_normal": lambda m, n: 2 / (m + n),
    "he_uniform": lambda m, n: 2 / m,
    "he_normal": lambda m, n: 2 / m,
}
each_function = pytest.mark.parametrize("name", VARIANCES)


def make(name, shape=(150, 250), seed=3, **options):
    return getattr(init, name)(shape, generator=fastopt.Generator(seed), **options)


@each_function
@pytest.mark.parametrize("gain", [None, 0.5])
def test_values_follow_the_requested_distribution(name, gain):
    """Check the Kolmogorov distance, and the variance to within four standard deviations."""
    w = make(name, **({} if gain is None else {"gain": gain})).astype(np.float64).ravel()
    variance = VARIANCES[name](150, 250)
    if gain is not None:
        variance *= gain**2 / (2 if name.startswith("he") else 1)
    z, n = np.sort(w / sqrt(variance)), w.size
    if name.endswith("uniform"):
        assert abs(z).max() <= sqrt(3) * (1 + 1e-7)
        cdf = (z / sqrt(3) + 1) / 2
    else:
        cdf = np.array([NormalDist().cdf(x) for x in z])
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < 1.95 / sqrt(n)
    assert abs(z.var() - 1) < 4 * sqrt(2 / n)


@each_function
def test_dtypes_round_the_same_float64_values(name):
    wide = make(name, dtype="float64")
    assert make(name).dtype == np.float32
    for dtype in (np.float16, np.float32):
        np.testing.assert_array_equal(make(name, dtype=dtype), wide.astype(dtype))


def test_float32_is_the_default():
    assert make("he_normal", dtype=None).dtype == make("he_normal").dtype == np.float32


def test_bfloat16_by_name_does_not_depend_on_imports():
    code = """if True:
        import sys, fastopt
        assert "ml_dtypes" not in sys.modules
        def make():
            return fastopt.init.he_normal((2, 3), generator=fastopt.Generator(1), dtype="bfloat16")
        print(make().dtype)
        del sys.modules["ml_dtypes"]
        sys.modules["ml_dtypes"] = None
        try:
            make()
        except ImportError as e:
            print(e)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "bfloat16",
        "bfloat16 in NumPy requires ml_dtypes, which is not installed: pip install ml_dtypes",
    ]


@each_function
def test_convolution_layouts_determine_the_scale(name):
    """5 x 5 x 3 inputs and 5 x 5 x 16 outputs, with both orders of axes."""
    torch_like = make(name, (16, 3, 5, 5), layout="out_in", dtype="float64")
    keras_like = make(name, (5, 5, 3, 16), dtype="float64")
    flat = make(name, (75, 400), dtype="float64")
    np.testing.assert_array_equal(torch_like.ravel(), keras_like.ravel())
    np.testing.assert_array_equal(keras_like.ravel(), flat.ravel()[:1200])


def test_fan_out():
    np.testing.assert_array_equal(make("he_normal", (8, 2), fan="out"), make("he_normal", (8, 2)) * 2)


@each_function
@each_library
def test_array_libraries_get_the_same_values(name, library):
    like = library.array(np.zeros(1))
    np.testing.assert_array_equal(library.host(make(name, (9, 5), like=like)), make(name, (9, 5)))


@each_function
def test_seed_is_accepted_as_generator(name):
    found = getattr(init, name)((3, 4), generator=np.int64(3))
    np.testing.assert_array_equal(found, make(name, (3, 4), seed=3))


@each_function
def test_shape_may_be_an_iterator(name):
    np.testing.assert_array_equal(make(name, iter((3, 4))), make(name, (3, 4)))


@each_function
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_numpy_errstate_does_not_change_the_result(name, dtype):
    expected = make(name, (500, 400), dtype=dtype)
    with np.errstate(all="raise"):
        found = make(name, (500, 400), dtype=dtype)
    np.testing.assert_array_equal(found, expected)


def test_each_call_consumes_one_offset():
    generator = fastopt.Generator(1)
    a, b = (init.he_normal((3, 4), generator=generator) for _ in range(2))
    assert generator.offset == 2
    assert not np.isin(a, b).any()
    resumed = fastopt.Generator(1)
    resumed.load_state_dict({"seed": 1, "stream": 0, "offset": 1})
    np.testing.assert_array_equal(init.he_normal((3, 4), generator=resumed), b)


def test_streams_of_a_generator_give_distinct_values():
    one, other = (init.he_normal((3, 4), generator=fastopt.Generator(1, stream=s)) for s in (0, 1))
    assert not np.isin(one, other).any()


def test_values_are_computed_from_philox_words():
    """Element 5 is the upper 52 bits of words 2 and 3 of block 2, at the key and the offset."""
    words = fastopt.functional.philox4x32(seed=9, offset=0, index=2)
    u = ((words[3] << 32 | words[2]) // 2**12 + 0.5) / 2**52
    w = make("xavier_uniform", (2, 4), seed=9, dtype="float64")
    assert w[1, 1] == 2 * u - 1  # 6 / (m + n) is 1
    assert _random.uniforms(9, 0, [0], 6)[0, 5] == u


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
@each_function
def test_empty_arrays(name, shape):
    assert make(name, shape).shape == shape


def test_gains_match_torch(torch):
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)


@pytest.mark.parametrize("shape", [(7, 3), (16, 3, 5, 5), (4, 6, 3)])
def test_fans_match_torch(torch, shape):
    expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert init.fans(shape, layout="out_in") == expected


INVALID = {
    "one axis": ({"shape": (3,)}, ValueError, r"shape is \(3,\), expected two axes"),
    "a size": ({"shape": (3, -1)}, ValueError, r"shape\[1\] must be 0 or more, got -1"),
    "a layout": (
        {"layout": "oihw"},
        ValueError,
        "layout must be one of 'in_out', 'out_in', got 'oihw'",
    ),
    "no shape": ({"shape": 5}, TypeError, "shape must be a sequence of sizes, got 5"),
    "a dtype": ({"dtype": "int8"}, TypeError, "dtype is int8, expected float16"),
    "no dtype": (
        {"dtype": "torch.float32"},
        TypeError,
        "dtype is 'torch.float32', expected float16, .* or float64, by name or as a NumPy dtype$",
    ),
    "a gain": ({"gain": -1.0}, ValueError, r"gain must lie in \[0, inf\), got -1.0"),
    "a fan": ({"fan": "avg"}, ValueError, "fan must be one of 'in', 'out', got 'avg'"),
    "an option": ({"scale": 1}, TypeError, "an initializer has no option 'scale'"),
    "no array": ({"like": 3}, TypeError, "like has type int, expected an array"),
    "no generator": (
        {"generator": np.random.default_rng(0)},
        TypeError,
        "generator has type Generator, expected fastopt.Generator or an integer seed",
    ),
    "a bool as seed": (
        {"generator": True},
        TypeError,
        "generator has type bool, expected fastopt.Generator or an integer seed",
    ),
    "a seed": ({"generator": -1}, ValueError, r"generator must lie in \[0, 2\*\*64\), got -1"),
}


@pytest.mark.parametrize(("options", "kind", "message"), INVALID.values(), ids=INVALID)
def test_rejected_call_consumes_no_offset(options, kind, message):
    generator = fastopt.Generator(1)
    with pytest.raises(kind, match="^" + message):
        init.he_normal(**{"shape": (3, 4), "generator": generator, **options})
    assert generator.offset == 0


def test_failed_allocation_consumes_no_offset(monkeypatch):
    def no_memory(values, template):
        raise MemoryError

    monkeypatch.setattr(init, "asarray_like", no_memory)
    generator = fastopt.Generator(1)
    with pytest.raises(MemoryError):
        init.he_normal((3, 4), generator=generator)
    assert generator.offset == 0


def test_unknown_nonlinearity_raises():
    with pytest.raises(ValueError, match=r"^nonlinearity must be one of 'linear', .*, got 'gelu'"):
        init.gain("gelu")


@each_function
def test_values_are_pinned(name):
    """The values are the same on every machine. A change here changes every user's results."""
    pins = {
        "xavier_uniform": ["-0x1.039c60p-1", "-0x1.d31862p-1", "0x1.26fc9ap-2"],
        "xavier_normal": ["-0x1.8fb258p-2", "-0x1.bf487cp-1", "0x1.b2f166p-3"],
        "he_uniform": ["-0x1.4f27fap-1", "-0x1.2d823ap+0", "0x1.7cd384p-2"],
        "he_normal": ["-0x1.0200cap-1", "-0x1.20b854p+0", "0x1.18c126p-2"],
    }
    found = make(name, (3, 2), seed=2024).ravel()[:3]
    assert found.tolist() == [float.fromhex(pin) for pin in pins[name]]
