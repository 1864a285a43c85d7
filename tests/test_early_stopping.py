"""Early stopping: when it stops, which parameters it keeps, and that they are restored bit for bit."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import fastopt
from array_libraries import Torch, each_library

# The errors, the options (patience is 2 by default), the update that stops, and the best update before it.
RUNS = {
    "falls, rises": ([3, 2, 1, 2, 3, 0], {}, 5, 3),
    "equal is no improvement": ([3, 3, 3, 0], {}, 3, 1),
    "too small a fall": ([3, 2.6, 2.4, 2.3, 2.2], {"min_delta": 0.5}, 5, 3),
    "accuracy": ([0.1, 0.5, 0.4, 0.5, 0.9], {"mode": "max"}, 4, 2),
    "NaN": ([1, math.nan, math.nan, 0], {}, 3, 1),
    "infinity": ([math.inf, 2, 3, 4], {}, 4, 2),
    "never": ([3, 2, 3, 1, 2, 0.5], {}, None, 6),
    "more patience": ([3, 4, 4, 4, 0], {"patience": 3}, 4, 1),
}


@pytest.mark.parametrize(("errors", "options", "stop", "best"), RUNS.values(), ids=RUNS)
def test_stops_and_keeps_the_best(errors, options, stop, best):
    stopper = fastopt.EarlyStopping(**{"patience": 2, **options})
    w = np.zeros(3)
    for update, error in enumerate(errors, start=1):
        w[:] = update
        if stopper.update(error, w):
            break
    assert stopper.stopped == (stop is not None)
    assert stopper.updates == (stop or len(errors))
    assert (stopper.best_update, stopper.best) == (best, errors[best - 1])
    stopper.restore(w)
    assert (w == best).all()


FORMS = {
    "array": lambda a, b: a,
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"a": a, "b": b},
    "groups": lambda a, b: [{"params": [a]}, {"params": {"b": b}, "lr": 1}],
}


@each_library
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_params_in_any_container_are_restored_bit_for_bit(form, dtype, library):
    start = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    arrays = [library.array(start), library.array(start.T)]
    params = FORMS[form](*arrays)
    stopper = fastopt.EarlyStopping()
    stopper.update(1.0, params)
    for array in arrays:
        array[...] = 0
    stopper.update(2.0, params)
    stopper.restore(params)
    assert library.host(arrays[0]).tobytes() == start.tobytes()
    if form != "array":
        assert library.host(arrays[1]).tobytes() == start.T.tobytes()


def test_named_parameters_are_restored_by_name():
    q, k = np.ones(3), np.full(3, 2.0)
    stopper, resumed = fastopt.EarlyStopping(), fastopt.EarlyStopping()
    stopper.update(2.0, {"q": q, "k": k})
    q[:] = 5
    stopper.update(1.0, {"k": k, "q": q})
    resumed.load_state_dict(pickle.loads(pickle.dumps(stopper.state_dict())))
    for one in (stopper, resumed):
        q[:], k[:] = 0, 0
        one.restore({"k": k, "q": q})
        assert (q.tolist(), k.tolist()) == ([5, 5, 5], [2, 2, 2])


def test_parameters_may_come_from_a_generator():
    w = [np.ones(3), np.zeros(2)]
    stopper = fastopt.EarlyStopping()
    for error in (2.0, 1.0):
        stopper.update(error, (a for a in w))
    w[0][:] = 7
    stopper.restore(a for a in w)
    assert (w[0] == 1).all()


def test_immutable_parameters_are_kept():
    """They can be restored into mutable arrays."""
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    stopper, resumed = fastopt.EarlyStopping(), fastopt.EarlyStopping()
    for error in (1.0, 2.0):
        stopper.update(error, {"w": jnp.full(3, error), "b": jnp.full(2, error, jnp.bfloat16)})
    resumed.load_state_dict(stopper.state_dict())
    w, b = np.zeros(3, np.float32), np.zeros(2, np.float32)
    resumed.restore({"b": b, "w": w})
    assert (w.tolist(), b.tolist()) == ([1, 1, 1], [1, 1])


def test_torch_parameters_that_require_gradients(torch):
    w = torch.ones(3, requires_grad=True)
    stopper = fastopt.EarlyStopping()
    stopper.update(torch.tensor(1.0), [w])
    with torch.no_grad():
        w *= 2
    stopper.restore([w])
    assert (w == 1).all()
    assert w.requires_grad


def test_torch_bfloat16_is_restored_from_a_file_bit_for_bit(torch, tmp_path):
    pytest.importorskip("array_api_compat", reason="needs fastopt[arrays]")
    w = torch.tensor([1.5, -2.0, 3e38], dtype=torch.bfloat16)
    stopper, resumed, before = fastopt.EarlyStopping(), fastopt.EarlyStopping(), w.clone()
    stopper.update(1.0, w)
    fastopt.checkpoint.save(tmp_path / "run.npz", stopper.state_dict())
    resumed.load_state_dict(fastopt.checkpoint.load(tmp_path / "run.npz"))
    w.zero_()
    resumed.restore(w)
    assert torch.equal(w.view(torch.int16), before.view(torch.int16))


@pytest.mark.parametrize("done", range(1, 5))
def test_a_resumed_run_stops_at_the_same_update_with_the_same_parameters(done):
    errors, _, stop, best = RUNS["falls, rises"]

    def run(stopper, w, updates):
        for update in updates:
            w[:] = update
            if stopper.update(errors[update - 1], w):
                return update
        return None

    broken, resumed = (fastopt.EarlyStopping(patience=2) for _ in range(2))
    w = np.zeros(2)
    run(broken, w, range(1, done + 1))
    state = pickle.loads(pickle.dumps(broken.state_dict()))
    broken.update(-1.0, w)  # the checkpoint does not share its arrays
    resumed.load_state_dict(state)
    assert run(resumed, w, range(done + 1, 7)) == stop
    resumed.restore(w)
    assert (w == best).all()


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5)])
def test_value_may_be_a_0d_array(value):
    stopper = fastopt.EarlyStopping()
    stopper.update(value, np.ones(3))
    assert stopper.best == 0.5


def test_a_state_shares_no_arrays():
    """Neither the state that is returned nor the one that is loaded."""
    w = np.ones(3)
    stopper, resumed = watching(w), fastopt.EarlyStopping()
    state = stopper.state_dict()
    resumed.load_state_dict(state)
    state["params"][0][:] = 7
    for s in (stopper, resumed):
        w[:] = 0
        s.restore(w)
        assert (w == 1).all()


def test_a_state_shares_no_names():
    state = watching({"q": np.ones(3)}).state_dict()
    state["names"] = list(state["names"])
    resumed = fastopt.EarlyStopping()
    resumed.load_state_dict(state)
    state["names"][0] = "k"
    w = np.zeros(3)
    resumed.restore({"q": w})
    assert (w == 1).all()


def test_waited_counts_the_updates_since_the_best():
    stopper = watching()
    for waited in (1, 2):
        stopper.update(2.0, W)
        assert stopper.waited == waited


def test_repr():
    stopper = fastopt.EarlyStopping(3, mode="max")
    assert repr(stopper) == "EarlyStopping(patience=3, min_delta=0.0, mode='max')"


W = np.ones(3)


def watching(w=W):
    stopper = fastopt.EarlyStopping()
    stopper.update(1.0, w)
    return stopper


REFUSED = {
    "patience": (lambda: fastopt.EarlyStopping(0), ValueError, "patience must be 1 or more"),
    "min_delta": (
        lambda: fastopt.EarlyStopping(min_delta=-1),
        ValueError,
        r"min_delta must lie in \[0",
    ),
    "mode": (
        lambda: fastopt.EarlyStopping(mode="auto"),
        ValueError,
        "mode must be one of 'min', 'max'",
    ),
    "nothing kept": (
        lambda: fastopt.EarlyStopping().restore(W),
        ValueError,
        "there is nothing to rest",
    ),
    "other params": (lambda: watching().update(0.5, [W, W]), ValueError, "params has 2 arrays, expec"),
    "other names": (
        lambda: watching({"q": W}).update(0.5, {"k": W}),
        ValueError,
        r"params has names \['k'\], but the saved copy has \['q'\]",
    ),
    "other names to restore": (
        lambda: watching({"q": W}).restore({"k": W}),
        ValueError,
        r"params has names \['k'\], but the saved copy has \['q'\]",
    ),
    "a mask": (
        lambda: watching({"q": np.ma.array(W)}),
        TypeError,
        r"params\['q'\] has a mask, expected a plain array",
    ),
    "a mask to restore": (
        lambda: watching().restore(np.ma.array(W)),
        TypeError,
        "params has a mask, expected a plain array",
    ),
    "a shape": (lambda: watching().restore(np.ones(2)), ValueError, r"params has shape \(2,\), exp"),
    "a shape to keep": (
        lambda: watching().update(0.5, np.ones(2)),
        ValueError,
        r"params has shape \(2,\), expected \(3,\)",
    ),
    "a shape in a group": (
        lambda: watching([{"params": W}, {"params": [W]}]).restore(
            [{"params": W}, {"params": [np.ones(4)]}]
        ),
        ValueError,
        r"params\[1\]\['params'\]\[0\] has shape \(4,\), expected \(3,\)",
    ),
    "a kind": (
        lambda: watching(W + 1j).restore(np.ones(3)),
        TypeError,
        r"params has dtype float64, expected complex128",
    ),
    "no array": (lambda: watching(["x"]), TypeError, r"params\[0\] has type str, expected an array"),
    "another mode": (
        lambda: fastopt.EarlyStopping(mode="max").load_state_dict(watching().state_dict()),
        ValueError,
        "state_dict has mode 'min', expected 'max'",
    ),
    "no value": (
        lambda: fastopt.EarlyStopping().update(None, W),
        TypeError,
        "value must be a number, got None",
    ),
    "text": (lambda: fastopt.EarlyStopping().update("0.5", W), TypeError, "value must be a number"),
    "values": (
        lambda: fastopt.EarlyStopping().update(np.ones(2), W),
        TypeError,
        "value must be a numb",
    ),
}


@pytest.mark.parametrize(("call", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_invalid_calls_raise(call, kind, says):
    with pytest.raises(kind, match="^" + says):
        call()


BAD_STATES = {
    "none": (lambda state: None, TypeError, "state has type NoneType, expected a dict"),
    "lacking": (lambda state: {"mode": "min"}, ValueError, r"state_dict lacks the keys \['updates'"),
    "no params": (
        lambda state: {**state, "params": None},
        TypeError,
        "state_dict's params has type NoneType, expected a list",
    ),
    "no array": (
        lambda state: {**state, "params": [W, 3]},
        TypeError,
        r"state_dict's params\[1\] has type int, expected an array",
    ),
    "too many names": (
        lambda state: {**state, "params": [W], "names": ["q", "k"]},
        ValueError,
        "state_dict's names has length 2, expected 1",
    ),
    "a best to come": (
        lambda state: {**state, "best_update": 2},
        ValueError,
        "state_dict's best_update is 2, but updates is 1",
    ),
    "a best that is none": (
        lambda state: {**state, "best": math.nan},
        ValueError,
        r"best must lie in \[-inf, inf\], got nan",
    ),
    "a count": (lambda state: {**state, "updates": -1}, ValueError, "updates must be 0 or more"),
}


@pytest.mark.parametrize(("change", "kind", "says"), BAD_STATES.values(), ids=BAD_STATES)
def test_invalid_state_changes_nothing(change, kind, says):
    stopper = watching()
    bad = change(fastopt.EarlyStopping().state_dict() | {"updates": 1})
    with pytest.raises(kind, match="^" + says):
        stopper.load_state_dict(bad)
    w = np.zeros(3)
    stopper.restore(w)
    assert (stopper.updates, stopper.best_update, stopper.best, w.tolist()) == (1, 1, 1.0, [1, 1, 1])


def read_only():
    w = np.zeros(2)
    w.flags.writeable = False
    return w


UNWRITABLE = {
    "read-only": read_only,
    "one element for all": lambda: Torch.array(np.zeros(1)).expand(2),
    "immutable": lambda: pytest.importorskip("jax.numpy").zeros(2),
}


@pytest.mark.parametrize("make", UNWRITABLE.values(), ids=UNWRITABLE)
def test_failed_restore_writes_nothing(make):
    a, unwritable = np.ones(2), make()
    stopper = fastopt.EarlyStopping()
    stopper.update(1.0, [a, np.ones(2)])
    a[:] = 5
    with pytest.raises(ValueError, match=r"^params\[1\] cannot be written to: "):
        stopper.restore([a, unwritable])
    assert (a == 5).all()


def test_an_update_that_cannot_copy_is_not_counted(monkeypatch):
    w = np.ones(3)
    stopper = watching(w)

    def no_memory(array):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("fastopt._early_stopping.copy_array", no_memory)
        with pytest.raises(MemoryError):
            stopper.update(0.5, w)
    w[:] = 0
    stopper.restore(w)
    assert (stopper.updates, stopper.best_update, stopper.best, w.tolist()) == (1, 1, 1.0, [1, 1, 1])
