"""Optimizer state: an optimizer restored from a checkpoint, a pickle or a copy continues bit for bit and is
independent of the original. A checkpoint that does not match changes nothing."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastopt
from optimizers_table import CASES, DTYPES, all_bits, bits, state_bits, values

SHAPES = ((5, 7), (11,), (2, 3, 4))


def arrays(seed, dtype=np.float32):
    return [values(shape, dtype, seed + i) for i, shape in enumerate(SHAPES)]


def grouped(x):
    return [{"params": {"a": x[0], "b": x[1]}, "lr": 0.3}, {"params": x[2:]}]


def save_and_load(state, tmp_path):
    fastopt.checkpoint.save(tmp_path / "state.npz", state)
    return fastopt.checkpoint.load(tmp_path / "state.npz")


CARRIERS = {
    "in memory": lambda state, _: state,
    "pickled": lambda state, _: pickle.loads(pickle.dumps(state)),
    "a file": save_and_load,
}
STORAGES = [*((name, None) for name in DTYPES), ("float16", "float32"), ("bfloat16", "float32")]
OPTIONS = {"l1": 0.01, "weight_decay": 0.1, "clip_norm": 1.0, "on_nonfinite": "skip"}


@pytest.mark.parametrize(("dtype", "wide"), STORAGES)
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("rule", CASES)
def test_checkpoint_resumes_bit_for_bit(rule, carrier, wide, dtype, tmp_path):
    case, dtype = CASES[rule], DTYPES[dtype]
    options = {} if rule == "sgd" else {"state_dtype": wide}
    params = arrays(0, dtype)
    opt = case.make(grouped(params), **options, **OPTIONS)
    opt.step(arrays(1, dtype))
    opt.step([np.full_like(a, np.nan) for a in arrays(1, dtype)])
    opt.step(arrays(2, dtype))
    saved = opt.state_dict()
    copies = [p.copy() for p in params]
    opt.step(arrays(3, dtype))
    resumed = case.make(grouped(copies), lr=0.01, **options)
    resumed.load_state_dict(CARRIERS[carrier](saved, tmp_path))
    resumed.step(arrays(3, dtype))
    assert all_bits(copies) == all_bits(params)
    assert state_bits(resumed) == state_bits(opt)
    assert (resumed.step_count, resumed.skipped_steps) == (3, 1)
    assert repr(resumed) == repr(opt)
    assert repr(resumed.groups) == repr(opt.groups)


def momentum(**options):
    return fastopt.Momentum({"a": values((2, 3)), "b": values(4)}, **options)


def test_state_dict_and_load_state_dict_copy_the_arrays():
    opt = momentum()
    saved = opt.state_dict()
    before = all_bits(saved["state"]["velocity"])
    opt.step({"a": values((2, 3)), "b": values(4)})
    assert all_bits(saved["state"]["velocity"]) == before
    other = momentum()
    other.load_state_dict(saved)
    other.step({"a": values((2, 3)), "b": values(4)})
    assert all_bits(saved["state"]["velocity"]) == before
    assert saved["hyper"] == momentum().state_dict()["hyper"]


def test_load_state_dict_restores_hyper_parameters_of_the_optimizer_and_its_groups():
    a, b = np.ones(2), np.ones(2)
    opt = fastopt.SGD([{"params": a, "lr": 0.5}, {"params": b}], lr=0.25)
    saved = opt.state_dict()
    opt.groups[0].lr, opt.lr = 0.0, 0.0
    opt.step([np.ones(2), np.ones(2)])  # the next step must not use these learning rates
    assert saved["groups"] == [{"lr": 0.5}, {}]
    opt.load_state_dict(saved)
    assert [group.lr for group in opt.groups] == [0.5, 0.25]
    opt.step([np.ones(2), np.ones(2)])
    assert (a.tolist(), b.tolist()) == ([0.5, 0.5], [0.75, 0.75])


def test_state_dict_names_of_groups_with_and_without_names():
    opt = fastopt.SGD([{"params": {"q": np.ones(2)}}, {"params": [np.ones(2)]}], lr=1.0)
    assert opt.state_dict()["names"] == ["q", 1]


def changed(path, value):
    """Return a function that sets a value in a checkpoint, or deletes it if the value is None."""

    def change(state):
        *way, last = path
        for key in way:
            state = state[key]
        if value is None:
            del state[last]
        else:
            state[last] = value

    return change


class Described:
    """Shape and dtype without an array, like jax.ShapeDtypeStruct."""

    shape, dtype = (4,), np.dtype(np.float32)


class WrongShape(Described):
    """An array whose shape attribute is wrong."""

    __array_interface__ = np.ones(2, np.float32).__array_interface__


VELOCITY = ("state", "velocity")
MISMATCHED = {
    "no optimizer": (
        changed(["optimizer"], None),
        " has no key 'optimizer', expected the state of an",
    ),
    "another class": (
        changed(["optimizer"], "Nesterov"),
        " has optimizer 'Nesterov', expected 'Momentum'",
    ),
    "another rule": (changed(["rule"], "nesterov"), " has rule 'nesterov', expected 'momentum'"),
    "other names": (changed(["names"], ["a", "c"]), r" has names \['a', 'c'\], expected \['a', 'b'\]"),
    "other groups": (changed(["group_sizes"], [1, 1]), r" has group_sizes \[1, 1\], expected \[2\]"),
    "no groups": (changed(["groups"], []), "'s groups has length 0, expected 1"),
    "no state": (changed(["state"], None), r" lacks the keys \['state'\]"),
    "no count": (changed(["step_count"], None), r" lacks the keys \['step_count'\]"),
    "no lr": (changed(["hyper", "lr"], None), "'s hyper has the keys"),
    "no velocity": (changed(VELOCITY, None), r"'s state has the keys \[\], expected \['velocity'\]"),
    "one array short": (changed([*VELOCITY, 1], None), "'s velocity has length 1, expected 2"),
    "another shape": (
        changed([*VELOCITY, 1], np.ones(5, "f4")),
        r"'s velocity\[1\] has shape \(5,\), expected",
    ),
    "another dtype": (
        changed([*VELOCITY, 1], np.ones(4)),
        r"'s velocity\[1\] has dtype float64, expected float32",
    ),
    "a list": (changed([*VELOCITY, 1], [0.0] * 4), r"'s velocity\[1\] has shape None, expected"),
}
BAD_VALUES = {
    "a bad lr": (changed(["hyper", "lr"], -1.0), ValueError, "lr must lie in"),
    "a bad lr of a group": (changed(["groups", 0, "lr"], "x"), TypeError, "lr must be a number"),
    "a clip_norm of a group": (
        changed(["groups", 0, "clip_norm"], 1.0),
        TypeError,
        "clip_norm is set for the whole optimizer",
    ),
    "a bad count": (changed(["step_count"], -1), ValueError, "step_count must be 0 or more"),
    "no hyper": (
        changed(["hyper"], "x"),
        TypeError,
        "state_dict's hyper has type str, expected a dict",
    ),
    "a number of groups": (
        changed(["groups"], 1),
        TypeError,
        "state_dict's groups has type int, expected a list",
    ),
    "a group that is not a dict": (
        changed(["groups", 0], 1),
        TypeError,
        r"state_dict's groups\[0\] has type int, expected a dict",
    ),
    "a number of arrays": (
        changed(VELOCITY, 2),
        TypeError,
        "state_dict's velocity has type int, expected a list",
    ),
    "a description of an array": (
        changed([*VELOCITY, 1], Described()),
        TypeError,
        r"state_dict's velocity\[1\] has type Described, expected an array",
    ),
    "an array with a wrong shape attribute": (
        changed([*VELOCITY, 1], WrongShape()),
        ValueError,
        r"state_dict's velocity\[1\] has shape \(2,\), expected \(4,\)",
    ),
    "a mask": (
        changed([*VELOCITY, 1], np.ma.ones(4, np.float32)),
        TypeError,
        r"state_dict's velocity\[1\] has a mask, expected a plain array",
    ),
    "fractional count": (
        changed(["skipped_steps"], 0.5),
        TypeError,
        "skipped_steps must be an integer",
    ),
}
INVALID = BAD_VALUES | {
    k: (do, ValueError, "state_dict" + message) for k, (do, message) in MISMATCHED.items()
}


@pytest.mark.parametrize(("change", "kind", "message"), INVALID.values(), ids=INVALID)
def test_mismatched_state_raises_and_changes_nothing(change, kind, message):
    source = momentum(lr=0.5)
    source.step({"a": values((2, 3)), "b": values(4)})
    state = source.state_dict()
    change(state)
    opt = momentum()
    before = state_bits(opt), repr(opt), repr(opt.groups)
    with pytest.raises(kind, match="^" + message):
        opt.load_state_dict(state)
    assert (state_bits(opt), repr(opt), repr(opt.groups)) == before


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_meta_or_sparse_tensor_in_the_state_raises_and_changes_nothing(kind, torch):
    opt, state = (fastopt.Adam([torch.ones(3), torch.ones(2)]) for _ in range(2))
    opt.step([torch.ones(3), torch.ones(2)])
    state, before = state.state_dict(), state_bits(opt)
    v = state["state"]["v"]
    v[1] = v[1].to("meta") if kind == "meta" else v[1].to_sparse()
    with pytest.raises(TypeError, match=r"^state_dict's v\[1\] (cannot be read|is sparse)"):
        opt.load_state_dict(state)
    assert state_bits(opt) == before


VARIANTS = {
    "form": (
        lambda: fastopt.Nesterov(values(3)),
        lambda: fastopt.Nesterov(values(3), form="applied"),
        "form='lookahead', expected form='applied'",
    ),
    "amsgrad": (
        lambda: fastopt.Adam(values(3), amsgrad=True),
        lambda: fastopt.Adam(values(3)),
        "amsgrad=True, expected amsgrad=False",
    ),
    "centered": (
        lambda: fastopt.RMSprop(values(3), centered=True),
        lambda: fastopt.RMSprop(values(3), momentum=0.5),
        "centered=True and no velocity, expected centered=False and a velocity",
    ),
}


@pytest.mark.parametrize(("theirs", "mine", "message"), VARIANTS.values(), ids=VARIANTS)
def test_state_of_another_variant_is_reported_by_its_options(theirs, mine, message):
    with pytest.raises(ValueError, match=f"^state_dict has {message}$"):
        mine().load_state_dict(theirs().state_dict())


LOADERS = {
    "optimizer": momentum,
    "plateau": lambda: fastopt.schedules.ReduceOnPlateau(1.0),
    "stopper": fastopt.EarlyStopping,
    "average": lambda: fastopt.EMA(values(3)),
    "generator": lambda: fastopt.Generator(1),
    "batches": lambda: fastopt.data.minibatches(values(3), batch_size=1, seed=1),
    "standardizer": fastopt.data.Standardizer,
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_state_that_is_not_a_dict_raises(make):
    for state, kind in ((None, "NoneType"), ("state", "str"), ([1], "list")):
        with pytest.raises(TypeError, match=f"^state has type {kind}, expected a dict$"):
            make().load_state_dict(state)


# ---- pickles and copies ----

COPIES = {
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": copy.deepcopy,
    "pickled twice": lambda opt: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(opt)))),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("twin", COPIES)
@pytest.mark.parametrize("rule", CASES)
def test_pickled_or_copied_optimizer_continues_bit_for_bit_and_is_independent(rule, twin, order):
    params = [np.array(a, order=order) for a in arrays(0)]
    opt = CASES[rule].make(grouped(params), **OPTIONS)
    opt.step(arrays(1))
    other = COPIES[twin](opt)
    before = all_bits(params), state_bits(opt)
    for seed in (2, 3):
        other.step(arrays(seed))
    assert (all_bits(params), state_bits(opt)) == before
    for seed in (2, 3):
        opt.step(arrays(seed))
    assert all_bits(other.params) == all_bits(params)
    assert state_bits(other) == state_bits(opt)
    assert (repr(other), repr(other.groups)) == (repr(opt), repr(opt.groups))


def test_deepcopy_of_model_and_optimizer_keeps_them_connected():
    model = {"w": values(5)}
    twin, opt = copy.deepcopy((model, fastopt.SGD(model)))
    opt.step({"w": values(5, seed=1)})
    assert bits(twin["w"]) == bits(opt.params["w"]) != bits(model["w"])


@pytest.mark.parametrize("wide", [None, "float32"])
def test_torch_optimizer_resumes_bit_for_bit(wide, torch, tmp_path):
    params = [torch.ones(5, dtype=torch.bfloat16)]
    opt = fastopt.Adam(params, state_dtype=wide)
    opt.step([params[0] * 3])
    opts = [opt, copy.deepcopy(opt)]
    for carry in CARRIERS.values():
        opts.append(fastopt.Adam([params[0].clone()], state_dtype=wide))
        opts[-1].load_state_dict(carry(opt.state_dict(), tmp_path))
    for o in opts:
        o.step([torch.ones(5, dtype=torch.bfloat16)])
    for o in opts:
        assert state_bits(o) == state_bits(opt)
        assert all_bits(o.params) == all_bits(opt.params)


@pytest.mark.parametrize(("dtype", "wide"), STORAGES)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_state_round_trips_between_numpy_and_torch(carrier, dtype, wide, torch, tmp_path):
    w = values(301, DTYPES[dtype])
    opt = fastopt.Adam([w], state_dtype=wide)
    opt.step([values(301, DTYPES[dtype], 1)])
    there = fastopt.Adam([torch.ones(301, dtype=getattr(torch, dtype))], state_dtype=wide)
    there.load_state_dict(CARRIERS[carrier](opt.state_dict(), tmp_path))
    back = fastopt.Adam([np.ones_like(w)], state_dtype=wide)
    back.load_state_dict(CARRIERS[carrier](there.state_dict(), tmp_path))
    assert state_bits(back) == state_bits(opt)
    for a, b in (*zip(opt.m, there.m, strict=True), *zip(opt.v, there.v, strict=True)):
        assert bits(a)[-1] == bits(b)[-1]


def test_torch_loads_numpy_views_and_read_only_arrays(torch):
    opt, there = fastopt.Adam([values((3, 4))]), fastopt.Adam([torch.ones(3, 4)])
    opt.step([values((3, 4), seed=1)])
    state = opt.state_dict()
    (m,), (v,) = state["state"].values()
    state["state"].update(m=[m[::-1, ::-1].copy()[::-1, ::-1]], v=[np.asfortranarray(v)])
    v.flags.writeable = False
    there.load_state_dict(state)
    assert [a.numpy().tobytes() for a in (*there.m, *there.v)] == [m.tobytes(), v.tobytes()]


def test_shallow_copy_raises():
    with pytest.raises(TypeError, match=r"^a shallow copy would share arrays"):
        copy.copy(momentum())


# ---- dtypes and initial values of the state ----


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("rule", [rule for rule, case in CASES.items() if case.states])
def test_state_dtype_float32_gives_float32_state_of_higher_precision(rule, dtype):
    params = [values(50, dtype, 1) for _ in range(2)]
    opts = [CASES[rule].make(params[0], state_dtype="float32"), CASES[rule].make(params[1])]
    for opt in opts:
        for seed in range(3):
            opt.step(values(50, dtype, seed))
    for name in CASES[rule].states:
        wide, narrow = (getattr(opt, name)[0] for opt in opts)
        assert (wide.dtype, narrow.dtype) == (np.float32, dtype)
        assert bits(wide) != bits(narrow.astype(np.float32))


def test_float16_second_moment_loses_gradients_below_the_documented_size():
    grads = np.arange(2**10, 2**14, dtype=np.uint16).view(np.float16)  # all from 6e-5 to 2
    opt = fastopt.Adam(np.zeros_like(grads))
    opt.step(grads)
    lost = opt.v[0] == 0
    assert float(grads[lost].max()) < (2.0**-25 / (1 - opt.beta2)) ** 0.5 < float(grads[~lost].min())
    assert float(grads[lost].max()) == pytest.approx(5.5e-3, rel=0.01)


@pytest.mark.parametrize("rule", [rule for rule, case in CASES.items() if case.states])
def test_state_dtype_applies_only_to_16_bit_parameters(rule):
    params = [values(3, dtype) for dtype in DTYPES.values()]
    opt = CASES[rule].make(params, state_dtype="float32")
    for name in CASES[rule].states:
        dtypes = [str(state.dtype) for state in getattr(opt, name)]
        assert dtypes == ["float32", "float32", "float32", "float64"]
    opt.step([p.copy() for p in params])
    assert (opt.step_count, opt.state_dtype) == (1, "float32")


def test_state_dtype_applies_to_16_bit_buffers_and_tensors(torch):
    opt = fastopt.Adam(
        [
            memoryview(values(3, np.float16)),
            torch.ones(3, dtype=torch.bfloat16),
            memoryview(values(3, np.float64)),
            torch.ones(3, dtype=torch.float64),
        ],
        state_dtype="float32",
    )
    found = [str(m.dtype).removeprefix("torch.") for m in opt.m]
    assert found == ["float32", "float32", "float64", "float64"]


@pytest.mark.parametrize("cls", [fastopt.AdaGrad, fastopt.RMSprop])
def test_initial_accumulator_sets_the_first_value(cls):
    opt = cls(
        arrays(0), initial_accumulator=0.25, **({"momentum": 0.9} if cls is fastopt.RMSprop else {})
    )
    sums = opt.sum_sq if cls is fastopt.AdaGrad else opt.mean_sq
    assert opt.initial_accumulator == 0.25
    assert all((s == 0.25).all() for s in sums)
    assert all((v == 0).all() for v in getattr(opt, "velocity", []))


# ---- changes while the state is read or stepped ----


def test_read_only_state_array_makes_load_state_dict_change_nothing(tmp_path):
    opt = fastopt.Adam(arrays(0))
    opt.step(arrays(3))
    state, before = opt.state_dict(), state_bits(opt)
    state["state"]["m"][0][:] = 9
    opt.m[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"m\[1\] is read-only"):
        opt.load_state_dict(state)
    assert state_bits(opt) == before


def test_load_state_dict_survives_a_number_that_empties_its_dict():
    opt = fastopt.Adam(np.ones(2))
    state = opt.state_dict()

    class Emptying:
        def __float__(self):
            state["hyper"].clear()
            return float("nan")

    state["hyper"]["lr"] = Emptying()
    with pytest.raises(ValueError, match="lr must lie in"):
        opt.load_state_dict(state)
    assert opt.lr == 1e-3


class CallsBack:
    """A gradient that calls a function when it is read, which is during a step."""

    def __init__(self, does):
        self.does = does

    @property
    def __array_interface__(self):
        self.does()
        return np.ones(2).__array_interface__


def test_state_cannot_be_set_loaded_or_copied_during_a_step():
    opt = fastopt.Adam([np.ones(2)])
    state, before, refused = opt.state_dict(), opt.m, []

    def callback():
        for what in (
            lambda: setattr(opt, "m", [np.zeros(2)]),
            lambda: opt.load_state_dict(state),
            opt.state_dict,
            lambda: copy.deepcopy(opt),
            lambda: pickle.dumps(opt),
        ):
            with pytest.raises(RuntimeError, match="is being stepped") as error:
                what()
            refused.append(error)

    opt.step([CallsBack(callback)])
    assert len(refused) >= 2
    assert opt.m is before
    assert opt.step_count == 1


@pytest.mark.parametrize(
    "copied", [fastopt.Adam.state_dict, copy.deepcopy], ids=["state_dict", "deepcopy"]
)
def test_step_while_the_state_is_copied_raises(copied):
    class Stepping(np.ndarray):
        def __deepcopy__(self, memo):
            opt.step([np.ones(2)])
            return np.array(self)

    opt = fastopt.Adam([np.ones(2)])
    opt.m = [np.zeros(2).view(Stepping)]
    with pytest.raises(RuntimeError, match=r"^this optimizer was stepped by another thread while"):
        copied(opt)


def test_optimizer_that_cannot_step_can_be_saved():
    opt = fastopt.Adam([np.ones(2)])
    opt.params[0].flags.writeable = False
    opt.m = [np.ones(3)]
    assert opt.state_dict()["state"]["m"][0].shape == (3,)


def test_lr_set_during_a_step_applies_to_the_next_step():
    w, refused = np.zeros(2), []
    opt = fastopt.SGD([w], lr=1.0)

    def callback():
        opt.lr = 0.5
        with pytest.raises(RuntimeError, match="is being stepped") as error:
            opt.step([np.ones(2)])
        refused.append(error)

    opt.step([CallsBack(callback)])
    assert refused
    opt.step([np.ones(2)])
    assert w.tolist() == [-1.5] * 2
