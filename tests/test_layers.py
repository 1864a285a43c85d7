"""The Dropout layer: a new mask in every forward pass, the same one in its backward pass, none in evaluation
mode, and no arrays kept."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import bits, values

OPTIONS = {
    "plain": {},
    "test time": {"scaling": "test_time"},
    "channels": {"channel_axis": 1},
    "alpha": {"alpha": True},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("training", [True, False])
def test_layer_matches_the_functions_with_its_generators_offsets(options, training):
    layer = fastopt.Dropout(0.3, generator=fastopt.Generator(5, stream=2), **OPTIONS[options])
    layer.train() if training else layer.eval()
    x, residual, bias, dy = (
        values(s, seed=i) for i, s in enumerate(((4, 3, 6), (4, 3, 6), 6, (4, 3, 6)))
    )
    for offset in range(3):
        expected, saved = F.dropout_forward(
            x,
            0.3,
            seed=layer.generator.key,
            offset=offset if training else 0,
            training=training,
            residual=residual,
            bias=bias,
            **OPTIONS[options],
        )
        assert bits(layer(x, residual=residual, bias=bias)) == bits(expected)
        assert bits(layer.backward(dy)) == bits(F.dropout_backward(dy, saved))
        out = np.empty_like(x)
        assert layer.eval().forward(x, out=out) is out
        assert layer.backward(dy, out=out) is out
        layer.training = training


def test_eval_mode_consumes_no_offset():
    layer, twin = (fastopt.Dropout(0.3, generator=5) for _ in range(2))
    x = values(100)
    layer.eval()(x)
    assert bits(layer.train()(x)) == bits(twin(x))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda layer: layer([1.0]), TypeError, "x has type list"),
        (lambda layer: layer(np.ones(3), out=np.ones(4)), ValueError, "out has shape"),
        (lambda layer: layer(np.ones(3), bias=np.ones(2)), ValueError, "bias has shape"),
    ],
)
def test_rejected_call_consumes_no_offset(call, kind, message):
    layer, twin = (fastopt.Dropout(0.3, generator=5) for _ in range(2))
    with pytest.raises(kind, match=message):
        call(layer)
    assert layer.generator.offset == 0
    x = values(100)
    assert bits(layer(x)) == bits(twin(x))


def test_rejected_call_keeps_offsets_that_others_drew_meanwhile():
    """An offset drawn elsewhere while the call is being rejected is not returned again."""
    layer, drawn = fastopt.Dropout(generator=5), []

    class DrawsThenFails:
        def __dlpack__(self, **_):
            drawn.append(layer.generator.next_offset())
            raise TypeError("none")

    with pytest.raises(TypeError, match="x cannot be read"):
        layer(DrawsThenFails())
    assert layer.generator.next_offset() == drawn[-1] + 1


def test_train_and_eval_return_the_layer():
    layer = fastopt.Dropout()
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training


def test_layers_sharing_a_generator_have_distinct_masks():
    generator = fastopt.Generator(3)
    one, two = fastopt.Dropout(generator=generator), fastopt.Dropout(generator=generator)
    x = np.ones(1000)
    seen = [layer(x).tobytes() for layer in (one, two, one, two)]
    assert len(set(seen)) == 4
    assert generator.offset == 4


def test_default_seed_is_readable_and_reproduces_the_masks():
    one, two = fastopt.Dropout(), fastopt.Dropout()
    assert one.generator.seed != two.generator.seed
    again = fastopt.Dropout(generator=one.generator.seed)
    x = values(1000)
    assert bits(again(x)) == bits(one(x))


def test_backward_without_its_own_forward_raises():
    layer = fastopt.Dropout(generator=1)
    message = (
        "Dropout.backward called without a preceding forward; each backward needs a forward of its own"
    )
    with pytest.raises(RuntimeError, match=message):
        layer.backward(values(3))
    layer(values(3))
    layer.backward(values(3))
    with pytest.raises(RuntimeError, match=message):
        layer.backward(values(3))


def test_backward_can_be_repeated_after_a_rejected_call():
    layer = fastopt.Dropout(generator=1)
    x = values((3, 4))
    layer(x)
    with pytest.raises(ValueError, match="dy has shape"):
        layer.backward(x.T)
    assert layer.backward(x).shape == (3, 4)


def test_a_layer_keeps_no_array():
    layer = fastopt.Dropout(generator=1)
    x, residual, bias, dy = values((3, 4)), values((3, 4)), values(4), values((3, 4))
    arrays = [x, residual, bias, dy]
    gc.collect()
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(10):
        layer(x, residual=residual, bias=bias)
        layer.backward(dy)
    assert [sys.getrefcount(a) for a in arrays] == before


@pytest.mark.parametrize("generator", ["seed", 1.5, b"seed", True], ids=repr)
def test_invalid_generator_raises(generator):
    with pytest.raises(
        TypeError, match=r"^generator must be a fastopt\.Generator or an integer seed, got"
    ):
        fastopt.Dropout(generator=generator)


def test_repr_shows_generator_and_changed_options():
    assert (
        repr(fastopt.Dropout(0.1, generator=3))
        == "Dropout(0.1, generator=Generator(3, stream=0, offset=0))"
    )
    layer = fastopt.Dropout(0.1, generator=3, channel_axis=1, alpha=True)
    assert repr(layer).endswith("offset=0), channel_axis=1, alpha=True)")
    assert "scaling='test_time'" in repr(fastopt.Dropout(scaling="test_time"))


def test_channel_axis_drops_whole_channels():
    y = fastopt.Dropout(0.5, generator=1, channel_axis=1)(np.ones((4, 3, 50), np.float32))
    assert (y == y[..., :1]).all()
    assert 0 < (y == 0).sum() < y.size


@pytest.mark.parametrize("axis", [0, 64, -65, 2**100])
def test_constructor_rejects_impossible_channel_axis(axis):
    with pytest.raises(ValueError, match=r"^channel_axis must be an axis other than 0, the batch, in "):
        fastopt.Dropout(0.5, channel_axis=axis)


def test_seed_out_of_range_is_reported_as_generator():
    with pytest.raises(ValueError, match=r"^generator must lie in \[0, 2\*\*64\), got -1$"):
        fastopt.Dropout(generator=-1)


def test_train_accepts_a_mode():
    layer = fastopt.Dropout(0.5)
    assert layer.train(False) is layer
    assert not layer.training
    assert layer.train().training
    with pytest.raises(TypeError, match=r"^mode must be True or False, got 1$"):
        layer.train(1)
