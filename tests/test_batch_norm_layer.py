"""The BatchNorm layer: equal to its functions, one backward for each forward, and its checkpoint."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import bits, values

OPTIONS = {
    "plain": {},
    "keras": {"momentum": 0.9, "momentum_mode": "keep", "unbiased": False, "eps": 1e-3},
    "cumulative": {"momentum": None},
    "fused": {"activation": "relu"},
    "no scale": {"affine": False},
    "no statistics": {"track_running_stats": False},
}
FUNCTION = {"momentum", "momentum_mode", "unbiased", "eps", "activation", "axis"}


@pytest.mark.parametrize("options", OPTIONS)
def test_layer_matches_the_functions(options):
    options = OPTIONS[options]
    layer = fastopt.BatchNorm(6, **options)
    mine = {
        k: copy.deepcopy(getattr(layer, k)) for k in ("gamma", "beta", "running_mean", "running_var")
    }
    told = {k: v for k, v in options.items() if k in FUNCTION}
    for batch, training in enumerate((True, True, False), start=1):
        x, residual, dy = (values((8, 6), seed=3 * batch + k) for k in range(3))
        layer.train() if training else layer.eval()
        own = training or mine["running_mean"] is None
        expected, saved = F.batch_norm_forward(
            x, *mine.values(), training=own, batch=batch, residual=residual, **told
        )
        assert bits(layer(x, residual=residual)) == bits(expected)
        want = F.batch_norm_backward(dy, saved)
        dx, dresidual = layer.backward(dy)
        assert bits(dx) == bits(want.dx)
        assert bits(dresidual) == bits(want.dresidual)
        for name in ("dgamma", "dbeta"):
            grad = getattr(want, name)
            assert (
                getattr(layer, name) is None
                if grad is None
                else bits(getattr(layer, name)) == bits(grad)
            )
        for name, array in mine.items():
            assert array is None or bits(getattr(layer, name)) == bits(array)


def test_batches_are_counted_in_training_only():
    layer = fastopt.BatchNorm(3)
    layer(values((4, 3)))
    layer.eval()(values((4, 3)))
    assert layer.num_batches_tracked == 1


def test_a_refused_batch_changes_nothing():
    layer = fastopt.BatchNorm(3)
    before = bits(layer.running_mean), layer.num_batches_tracked
    with pytest.raises(ValueError, match=r"^x has shape \(4, 4\), expected num_features=3"):
        layer(values((4, 4)))
    assert (bits(layer.running_mean), layer.num_batches_tracked) == before


def test_empty_batch_is_not_counted_in_the_average():
    layer = fastopt.BatchNorm(2, momentum=None)
    for samples in ([], [[1.0, 2.0], [3.0, 4.0]], [], [[5.0, 0.0], [7.0, 0.0]]):
        layer(np.reshape(samples, (-1, 2)))
    assert layer.num_batches_tracked == 2
    assert layer.running_mean.tolist() == [4.0, 1.5]


def test_single_sample_is_counted_in_the_average_only_if_accepted():
    layer = fastopt.BatchNorm(2, momentum=None)
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(np.ones((1, 2)))
    assert layer.num_batches_tracked == 0
    layer.single_value = "zero_var"
    layer(np.ones((1, 2)))
    assert (layer.num_batches_tracked, layer.running_mean.tolist()) == (1, [1.0, 1.0])


@pytest.mark.parametrize(
    ("axis", "shape"), [(1, (4, 2)), (-1, (4, 3, 2)), (-2, (3, 2, 3)), (0, (2, 3))]
)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_wrong_number_of_channels_is_rejected_with_and_without_arrays(axis, shape, affine, tracks):
    layer = fastopt.BatchNorm(3, axis=axis, affine=affine, track_running_stats=tracks)
    x, says = (
        np.ones(shape),
        rf"x has shape {re.escape(str(shape))}, expected num_features=3 along axis {axis}",
    )
    for refused in (x, Opaque(x)):
        out = np.zeros(shape)
        with pytest.raises(ValueError, match=f"^{says}$"):
            layer(refused, out=out)
        assert not out.any()
    layer.eval()
    with pytest.raises(ValueError, match=f"^{says}$"):
        layer(x)
    good = np.moveaxis(values((4, 5, 3)), 2, axis)
    assert layer(good).shape == good.shape


class Opaque:
    """An array whose shape is available only through a protocol."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.array = array


def test_other_errors_are_reported_if_the_number_of_channels_matches():
    layer = fastopt.BatchNorm(3)
    with pytest.raises(ValueError, match=r"^out has shape \(4, 2\), but x has \(4, 3\)"):
        layer(np.ones((4, 3)), out=np.ones((4, 2)))
    layer.gamma = np.ones(4)
    with pytest.raises(ValueError, match=r"^gamma has shape \(4,\), expected \(3,\)"):
        layer(np.ones((4, 3)))


def test_backward_needs_a_forward_for_each_call():
    layer = fastopt.BatchNorm(3)
    x = values((4, 3))
    layer(x)
    assert layer.backward(x).shape == x.shape
    with pytest.raises(RuntimeError, match=r"BatchNorm\.backward called without a preceding forward"):
        layer.backward(x)


def test_out_is_written_forward_and_backward():
    layer, x = fastopt.BatchNorm(3), values((4, 3))
    out = np.empty_like(x)
    assert layer(x, out=out) is out
    dy = values((4, 3), seed=1)
    assert layer.backward(dy, out=dy) is dy


def test_skip_gradient_is_kept_when_dx_overwrites_dy():
    layer, x, skip, dy = fastopt.BatchNorm(3), *(values((4, 3), seed=s) for s in range(3))
    given = dy.copy()
    layer(x, residual=skip)
    dx, dskip = layer.backward(dy, out=dy)
    assert dx is dy
    assert bits(dskip) == bits(given)


def test_arrays_are_like_the_given_one(torch):
    layer = fastopt.BatchNorm(3, like=torch.empty(3, dtype=torch.float64))
    assert {type(layer.gamma), type(layer.running_var)} == {torch.Tensor}
    assert layer.beta.dtype == torch.float64
    layer(torch.randn(4, 3, dtype=torch.float64))
    layer.backward(torch.ones(4, 3, dtype=torch.float64))
    assert layer.dbeta.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_goes_on_with_the_same_bits(copied):
    layer = fastopt.BatchNorm(3, momentum=None)
    layer(values((4, 3)))
    twin = copied(layer)
    with pytest.raises(RuntimeError, match="without a preceding forward"):
        twin.backward(values((4, 3)))
    x = values((4, 3), seed=9)
    assert bits(twin(x)) == bits(layer(x))
    assert bits(twin.running_var) == bits(layer.running_var)


def test_a_checkpoint_goes_on_with_the_same_bits():
    layer, twin = fastopt.BatchNorm(3, momentum=None), fastopt.BatchNorm(3, momentum=None)
    layer.gamma[:] = [1, 2, 3]
    for seed in range(3):
        layer(values((4, 3), seed=seed))
    state = layer.state_dict()
    layer(values((4, 3), seed=4))
    twin.load_state_dict(state)
    twin(values((4, 3), seed=4))
    for name in ("gamma", "running_mean", "running_var"):
        assert bits(getattr(twin, name)) == bits(getattr(layer, name))


class Described:
    """A shape and a dtype without an array, like jax.ShapeDtypeStruct."""

    shape, dtype = (3,), np.dtype(np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": np.ones(4, np.float32)}, r"state_dict's gamma has shape \(4,\), expected \(3,\)"),
        ({"gamma": np.ones(3)}, "state_dict's gamma has dtype float64, expected float32"),
        ({"gamma": [1, 1, 1]}, "state_dict's gamma has shape None, expected"),
        ({"beta": None}, "state_dict's beta is None"),
        ({"num_batches_tracked": -1}, "num_batches_tracked must be 0 or more, got -1"),
        ({"more": 1}, "^state_dict has the keys"),
        (
            {"running_var": Described()},
            "state_dict's running_var has type Described, expected an array",
        ),
    ],
)
def test_another_layers_checkpoint_is_refused(change, message):
    layer = fastopt.BatchNorm(3)
    state = {**fastopt.BatchNorm(3).state_dict(), "running_mean": np.ones(3, np.float32), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        layer.load_state_dict(state)
    assert not layer.running_mean.any()


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_a_checkpoint_is_loaded_whole_or_not_at_all(name):
    layer, state = fastopt.BatchNorm(3), fastopt.BatchNorm(3).state_dict()
    for key in ("gamma", "beta", "running_mean", "running_var"):
        state[key] += 5.0
    getattr(layer, name).flags.writeable = False
    before = bits(layer.gamma), bits(layer.running_mean)
    with pytest.raises(ValueError, match=f"^{name} is read-only, expected an array to write to$"):
        layer.load_state_dict(state)
    assert (bits(layer.gamma), bits(layer.running_mean)) == before


def test_state_that_is_not_a_dict_is_rejected():
    for state in (None, [], 3):
        with pytest.raises(TypeError, match=r"^state has type \w+, expected a dict"):
            fastopt.BatchNorm(3).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": -1}, ValueError, "num_features must be 0 or more, got -1"),
        ({"num_features": True}, TypeError, "num_features must be an integer, got True"),
        ({"eps": -1.0}, ValueError, r"eps must lie in \[0, inf\), got -1.0"),
        ({"momentum": 2.0}, ValueError, r"momentum must lie in \[0, 1\], got 2.0"),
        ({"affine": 1}, TypeError, "affine must be True or False, got 1"),
        ({"activation": "gelu"}, ValueError, "activation must be one of None, 'relu', got 'gelu'"),
        ({"like": np.empty(4)}, ValueError, r"like has shape \(4,\), expected \(3,\)"),
        ({"like": np.ones(3, int)}, TypeError, "like has dtype int64, expected float16, bfloat16"),
        ({"like": 3.0}, TypeError, "like has type float, expected an array"),
    ],
)
def test_bad_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        fastopt.BatchNorm(**{"num_features": 3, **arguments})


def test_repr_shows_every_option_that_is_not_the_default():
    assert repr(fastopt.BatchNorm(3)) == "BatchNorm(3)"
    text = (
        "BatchNorm(3, momentum=None, unbiased=False, axis=-1, affine=False, track_running_stats=False)"
    )
    layer = fastopt.BatchNorm(
        3, momentum=None, unbiased=False, axis=-1, affine=False, track_running_stats=False
    )
    assert repr(layer) == text


def test_missing_and_unexpected_arrays_are_reported_without_their_values():
    with_arrays, without = fastopt.BatchNorm(3), fastopt.BatchNorm(3, affine=False)
    with pytest.raises(ValueError, match=r"^state_dict's gamma is None, expected an array$"):
        with_arrays.load_state_dict(without.state_dict())
    with pytest.raises(ValueError, match=r"^state_dict's gamma is an array, expected None$"):
        without.load_state_dict(with_arrays.state_dict())
    without.load_state_dict(fastopt.BatchNorm(3, affine=False).state_dict())
