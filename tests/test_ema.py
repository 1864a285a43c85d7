"""The moving average of weights: compared with the explicit sum, in each dtype, swapped in and out, and
resumed."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from array_libraries import each_library


def path(steps=30, shape=(4, 3), dtype=np.float64):
    return np.random.default_rng(1).normal(size=(steps, *shape)).astype(dtype)


def explicit_sum(weights, decays):
    """Return the sum of theta_t (1 - d_t) times the product of later decays, with d_0 = 0, in float64."""
    factors = [1 - d for d in [0.0, *decays]]
    for t, d in enumerate(decays, start=1):
        factors[:t] = [f * d for f in factors[:t]]
    return np.tensordot(factors, weights.astype(np.float64), 1)


@each_library
@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_average_is_the_weighted_sum(dtype, warmup, library):
    weights = path(dtype=dtype)
    w = library.array(weights[0])
    ema = fastopt.EMA(w, decay=0.9, warmup=warmup)
    for now in weights[1:]:
        w[...] = library.array(now)
        ema.update()
    decays = [min(0.9, (1 + t) / (10 + t)) if warmup else 0.9 for t in range(1, 30)]
    wide = np.float64 if dtype == np.float64 else np.float32
    assert library.host(ema.average[0]).dtype == wide
    few = 30 * np.finfo(wide).eps
    np.testing.assert_allclose(library.host(ema.average[0]), explicit_sum(weights, decays), few, few)


def test_average_matches_torch(torch):
    weights = path()
    model = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
    theirs = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    theirs.update_parameters(model)  # the first call copies
    ours = fastopt.EMA(list(model.parameters()), decay=0.9)
    for now in weights:
        with torch.no_grad():
            model.weight[:] = torch.from_numpy(now.T.copy())
        theirs.update_parameters(model)
        ours.update()
    np.testing.assert_allclose(ours.average[0], theirs.module.weight.detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_parameters_do_not_lose_small_changes(dtype):
    w = np.zeros(1, dtype)
    ema = fastopt.EMA(w, decay=0.999)
    w[:] = 1
    for _ in range(1000):
        ema.update()
    assert ema.average[0] == pytest.approx(1 - 0.999**1000, rel=1e-4)
    ema.copy_to()
    assert w.dtype == dtype
    assert float(w[0]) == pytest.approx(1 - 0.999**1000, rel=2**-8)


def test_applied_restores_the_parameters():
    params = {"a": path()[0], "b": path()[1]}
    before = {name: w.copy() for name, w in params.items()}
    ema = fastopt.EMA(params, decay=0.5)
    for w in params.values():
        w += 1.0
    ema.update()

    def use_applied():
        with ema.applied():
            for name, w in params.items():
                np.testing.assert_allclose(w, before[name] + 0.5)
            raise KeyError  # the parameters are restored all the same

    with pytest.raises(KeyError):
        use_applied()
    for name, w in params.items():
        np.testing.assert_array_equal(w, before[name] + 1.0)


def test_averages_are_copied_to_another_model():
    w, other = np.zeros(3), np.ones(3, np.float32)
    fastopt.EMA(w).copy_to([other])
    assert (other == 0).all()


NAMED = {
    "dict": lambda **arrays: arrays,
    "groups": lambda **arrays: [{"params": {name: a}} for name, a in arrays.items()],
    "one group": lambda **arrays: [{"params": arrays}],
}


@pytest.mark.parametrize("to", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("form", NAMED.values(), ids=NAMED)
def test_averages_are_copied_to_another_model_by_name(form, to):
    q, k = np.ones(3), np.full(3, 2.0)
    ema = fastopt.EMA(form(q=np.zeros(3), k=np.full(3, 7.0)))
    ema.copy_to(to(k=k, q=q))
    assert (q.tolist(), k.tolist()) == ([0, 0, 0], [7, 7, 7])
    ema.copy_to([k, q])  # without names: in order
    assert (q.tolist(), k.tolist()) == ([7, 7, 7], [0, 0, 0])


def test_a_name_may_be_in_two_groups_in_the_same_order():
    groups = [{"params": {"w": np.zeros(3)}}, {"params": {"w": np.ones(3)}}]
    first, second = np.full(3, 5.0), np.full(3, 5.0)
    ema = fastopt.EMA(groups)
    ema.copy_to([{"params": {"w": first}}, {"params": {"w": second}}])
    assert (first.tolist(), second.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_a_resumed_average_continues_bit_for_bit():
    weights = path()
    w = weights[0].copy()
    ema = fastopt.EMA(w, warmup=True)
    state = None
    for i, now in enumerate(weights):
        w[:] = now
        ema.update()
        if i == 10:
            state = pickle.loads(pickle.dumps(ema.state_dict()))
    resumed = fastopt.EMA(w, warmup=True)
    resumed.load_state_dict(state)
    for now in weights[11:]:
        w[:] = now
        resumed.update()
    assert resumed.updates == ema.updates == 30
    assert resumed.average[0].tobytes() == ema.average[0].tobytes()


def test_a_state_is_a_copy():
    w = np.zeros(2)
    ema = fastopt.EMA(w, decay=0.5)
    saved = ema.state_dict()
    w += 1
    ema.update()
    assert (saved["average"][0] == 0).all()
    assert not np.shares_memory(saved["average"][0], ema.average[0])


def test_memory_that_torch_replaces_is_averaged_and_written(torch):
    """``vector_to_parameters`` and ``model.double()`` assign ``p.data``."""
    model = torch.nn.Linear(2, 1, bias=False)
    ema = fastopt.EMA(list(model.parameters()), 0.5)
    torch.nn.utils.vector_to_parameters(torch.tensor([10.0, 20.0]), list(model.parameters()))
    for _ in range(40):
        ema.update()
    np.testing.assert_allclose(ema.average[0], [[10.0, 20.0]], rtol=1e-5)
    model.double()
    with torch.no_grad():
        model.weight.zero_()
    with ema.applied():
        np.testing.assert_allclose(model.weight.detach(), [[10.0, 20.0]], rtol=1e-5)
    assert model.weight.dtype == torch.float64
    assert (model.weight == 0).all()
    ema.copy_to()
    np.testing.assert_allclose(model.weight.detach(), [[10.0, 20.0]], rtol=1e-5)


def test_failed_update_changes_nothing():
    v, w = np.ones(2), np.ones(6)
    ema = fastopt.EMA([v, w], 0.5)
    v[:] = 3
    w.shape = (2, 3)
    with pytest.raises(ValueError, match=r"^params\[1\] has shape \(2, 3\), expected \(6,\)$"):
        ema.update()
    assert ema.updates == 0
    assert (ema.average[0] == 1).all()


def test_an_average_on_another_device_changes_nothing(torch):
    v, w = torch.ones(2), torch.ones(3)
    ema = fastopt.EMA([v, w], 0.5)
    v[:] = 3
    ema.average[1] = torch.ones(3, device="meta")
    with pytest.raises(ValueError, match=r"^params\[1\] is on device cpu, but its average is on meta$"):
        ema.update()
    assert ema.updates == 0
    assert (ema.average[0] == 1).all()


def test_numpys_error_settings_do_not_stop_an_update():
    w = np.array([1e-310])
    ema = fastopt.EMA(w, 0.5)
    w[:] = 3e-310
    with np.errstate(all="raise"):
        ema.update()
    assert (ema.updates, ema.average[0][0]) == (1, 2e-310)


def test_repr():
    assert repr(fastopt.EMA([W, W], 0.5)) == "EMA(2 arrays, decay=0.5, warmup=False)"


@pytest.mark.parametrize("bad", [np.array(["a"] * 2), np.ones(2, "c16"), np.ones(2, bool)], ids=str)
def test_invalid_average_changes_nothing(bad):
    ema = fastopt.EMA([np.ones(3), np.ones(2)])
    state = {"updates": 1, "average": [np.zeros(3), bad]}
    with pytest.raises(TypeError, match=rf"^state_dict's average\[1\] has dtype {bad.dtype}, expected"):
        ema.load_state_dict(state)
    assert ema.updates == 0
    assert (ema.average[0] == 1).all()


def test_copy_of_a_non_numeric_average_changes_no_parameter():
    params = [np.zeros(3), np.zeros(2)]
    ema = fastopt.EMA(params)
    ema.average = [np.ones(3), np.array(["a", "b"])]
    with pytest.raises(TypeError, match=r"^params\[1\] has dtype float64, expected <U1$"):
        ema.copy_to()
    assert (params[0] == 0).all()


W = np.ones(3)
REFUSED = {
    "decay": (lambda: fastopt.EMA(W, 1.0), ValueError, r"decay must lie in \[0, 1\), got 1.0"),
    "warmup": (lambda: fastopt.EMA(W, warmup=10), TypeError, "warmup must be True or False"),
    "integers": (lambda: fastopt.EMA([W, np.ones(3, int)]), TypeError, r"params\[1\] has dtype int64"),
    "a mask": (
        lambda: fastopt.EMA([W, np.ma.array(W)]),
        TypeError,
        r"params\[1\] has a mask, expected a plain array",
    ),
    "a shape": (
        lambda: fastopt.EMA(W).copy_to(np.ones(2)),
        ValueError,
        r"params has shape \(2,\), expected \(3,\)",
    ),
    "a state": (
        lambda: fastopt.EMA(W).load_state_dict(fastopt.EMA([W, W]).state_dict()),
        ValueError,
        "state_dict's average has 2 arrays, expected 1",
    ),
    "other names": (
        lambda: fastopt.EMA({"q": W, "k": W}).copy_to({"q": W, "v": W}),
        ValueError,
        r"params has names \['q', 'v'\], but the saved copy has \['q', 'k'\]",
    ),
    "names of what has none": (
        lambda: fastopt.EMA([W, W]).copy_to({"q": W, "k": W}),
        ValueError,
        r"params has names \['q', 'k'\], but the saved copy has no names",
    ),
    "a shape under a name": (
        lambda: fastopt.EMA({"q": W, "k": W}).copy_to({"k": np.ones(2), "q": W}),
        ValueError,
        r"params\['k'\] has shape \(2,\), expected \(3,\)",
    ),
    "a state in another order": (
        lambda: fastopt.EMA({"k": W, "q": W}).load_state_dict(
            fastopt.EMA({"q": W, "k": W}).state_dict()
        ),
        ValueError,
        r"state_dict has names \['q', 'k'\], expected \['k', 'q'\]",
    ),
    "a state without names": (
        lambda: fastopt.EMA({"q": W}).load_state_dict(fastopt.EMA(W).state_dict()),
        ValueError,
        r"state_dict is of parameters without names, expected names \['q'\]",
    ),
    "no state": (
        lambda: fastopt.EMA(W).load_state_dict(None),
        TypeError,
        "state has type NoneType, expected a dict",
    ),
    "integers to write to": (
        lambda: fastopt.EMA(W).copy_to(np.ones(3, int)),
        TypeError,
        r"params has dtype int64, expected float64",
    ),
    "a shape in a group": (
        lambda: fastopt.EMA([{"params": W}, {"params": [W, W]}]).copy_to(
            [{"params": W}, {"params": [W, np.ones(2)]}]
        ),
        ValueError,
        r"params\[1\]\['params'\]\[1\] has shape \(2,\), expected \(3,\)",
    ),
    "a decay set": (
        lambda: setattr(fastopt.EMA(W), "decay", 5.0),
        ValueError,
        r"decay must lie in \[0, 1\), got 5.0",
    ),
    "a state without an average": (
        lambda: fastopt.EMA(W).load_state_dict({"names": None, "updates": 0}),
        ValueError,
        "state_dict .*average",
    ),
    "no average": (
        lambda: fastopt.EMA(W).load_state_dict({"updates": 1, "average": None}),
        TypeError,
        "state_dict's average has type NoneType, expected a list",
    ),
}


def test_immutable_array_is_rejected():
    """Its average would never change."""
    w = pytest.importorskip("jax.numpy", reason="JAX is not installed").ones(3)
    says = r"^params\['w'\] has type ArrayImpl, expected an array that can change in place$"
    with pytest.raises(TypeError, match=says):
        fastopt.EMA({"w": w})


@pytest.mark.parametrize(("call", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_invalid_calls_raise(call, kind, says):
    with pytest.raises(kind, match="^" + says):
        call()


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (np.array(["x", "y"]), TypeError, r"state_dict's average\[1\] has dtype <U1, expected float64"),
        (
            np.ones(2) + 1j,
            TypeError,
            r"state_dict's average\[1\] has dtype complex128, expected float64",
        ),
        (np.ones(3), ValueError, r"state_dict's average\[1\] has shape \(3,\), expected \(2,\)"),
    ],
)
def test_invalid_state_changes_nothing(value, kind, says):
    ema = fastopt.EMA([np.zeros(2), np.zeros(2)])
    with pytest.raises(kind, match="^" + says):
        ema.load_state_dict({"updates": 1, "average": [np.ones(2), value]})
    assert (ema.updates, [a.tolist() for a in ema.average]) == (0, [[0, 0], [0, 0]])
