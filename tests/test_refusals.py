"""Invalid arrays are rejected by classes and functions alike. The error names the argument, its index, what was
found and what was expected, and no byte of any array changes."""

import collections
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastopt
from adam_setup import FACES, LAST, SHAPE, flat, refused, scene
from fastopt import _core
from fastopt import functional as F
from optimizers_table import values

ANY_TYPE = "float16, bfloat16, float32 or float64"

# ---- one array of a list ----


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


class Cuda:
    """Has the interface of an array on a GPU."""

    def __init__(self, a):
        pointer = {"data": (a.ctypes.data, False), "version": 3}
        self.__cuda_array_interface__ = {"shape": a.shape, "typestr": a.dtype.str, **pointer}


def raising_array(name, error):
    """Return an array whose interface raises an error."""

    def ask(self):
        raise error

    return type("Freed", (), {name: property(ask)})()


# How to make an invalid array from a valid one, and the error message without the name of the argument.
NOT_AN_ARRAY = {
    "None": (lambda a: None, f"has type NoneType, expected an array of {ANY_TYPE}"),
    "a list": (lambda a: a.tolist(), f"has type list, expected an array of {ANY_TYPE}"),
    "a number": (lambda a: 1.0, f"has type float, expected an array of {ANY_TYPE}"),
    **{
        f"an array whose {name} raises": (
            lambda a, n=name: raising_array(n, RuntimeError("it was freed")),
            "cannot be viewed as an array: it was freed",
        )
        for name in ("__array_interface__", "__cuda_array_interface__", "__dlpack__")
    },
    "a CUDA array": (Cuda, f"is a CUDA array (Cuda), but {_core.cuda_trouble()}"),
}
INVALID_DTYPE = {
    name: (lambda a, d=name: a.astype(d), f"has dtype {np.dtype(name)}, expected {ANY_TYPE}")
    for name in ("int32", "uint8", "bool", "complex64", "longdouble", "object", "S4")
}
INVALID_DTYPE["the other byte order"] = (
    lambda a: a.astype(a.dtype.newbyteorder("S")),
    f"has dtype {np.dtype(np.float32).newbyteorder('S')}, expected {ANY_TYPE} in native byte order",
)
GAPS = "has shape (4, 25) and strides {strides}, expected a dense array"
NOT_WRITABLE = {
    "read-only": (read_only, "is read-only, expected an array to write to"),
    "gaps": (lambda a: np.repeat(a, 2, 1)[:, ::2], GAPS.format(strides=(200, 8))),
    "gaps outside": (lambda a: np.repeat(a, 2, 0)[::2], GAPS.format(strides=(200, 4))),
    "backwards": (lambda a: a.copy()[::-1], GAPS.format(strides=(-100, 4))),
    "broadcast": (
        lambda a: np.lib.stride_tricks.as_strided(a.copy(), a.shape, (0, 4)),
        GAPS.format(strides=(0, 4)),
    ),
}


@dataclass
class Row:
    place: str
    bad: Any
    kind: type[Exception]
    message: str


def table():
    for place in ("params", "m", "v", "grads"):
        at = f"{place}[{LAST}]"
        for what, (bad, message) in (NOT_AN_ARRAY | INVALID_DTYPE).items():
            yield f"{place}: {what}", Row(place, bad, TypeError, f"{at} {message}")
        if place == "params":
            continue
        of = f"params[{LAST}] has"
        for dtype in ("float16", "float64"):
            message = f"{at} has dtype {dtype}, but {of} float32"
            yield f"{place}: {dtype}", Row(place, lambda a, d=dtype: a.astype(d), TypeError, message)
        for shape in ((25, 4), (100,), (4, 25, 1)):
            message = f"{at} has shape {shape}, but {of} (4, 25)"
            yield f"{place}: {shape}", Row(place, lambda a, s=shape: a.reshape(s), ValueError, message)
    for place in ("params", "m", "v"):
        for what, (bad, message) in NOT_WRITABLE.items():
            yield f"{place}: {what}", Row(place, bad, ValueError, f"{place}[{LAST}] {message}")
    message = "has strides (4, 16), but params[2] has (100, 4): their elements must have the same order"
    yield "m: another order", Row("m", np.asfortranarray, ValueError, f"m[2] {message}")


ROWS = dict(table())


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_invalid_array_is_named_in_the_error(row, face):
    s = scene()
    good = s[row.place][LAST]
    s[row.place][LAST] = row.bad(good)
    all_arrays = [good, *flat(s)]
    with refused(row.kind, "^" + re.escape(row.message), all_arrays):
        FACES[face](s)


# As params, these are a sequence or are rejected with another message (below).
PLAIN = ("None", "a list", "a number")
CONSTRUCTOR_CASES = [
    (name, form)
    for name, row in ROWS.items()
    for form in ("list", "array", "dict", "groups", "lists in groups", "dicts in groups")
    if row.place == "params" and not (form in ("array", "groups") and name.endswith(PLAIN))
]


@pytest.mark.parametrize(("name", "form"), CONSTRUCTOR_CASES)
def test_invalid_parameter_is_rejected_by_the_constructor(name, form):
    row = ROWS[name]
    a, bad = values(SHAPE), row.bad(values(SHAPE))
    params, at = {
        "list": ([a, a.copy(), bad], "params[2]"),
        "array": (bad, "param"),
        "dict": ({"a": a, "b": bad}, "params['b']"),
        "groups": ([{"params": [a, a.copy()]}, {"params": bad}], "params[1]['params']"),
        "lists in groups": (
            [{"params": {"a": a}}, {"params": [a.copy(), bad]}],
            "params[1]['params'][1]",
        ),
        "dicts in groups": (
            [{"params": {"a": a}}, {"params": {"b": a.copy(), "a": bad}}],
            "params[1]['params']['a']",
        ),
    }[form]
    with refused(row.kind, "^" + re.escape(row.message.replace("params[2]", at)), [a]):
        fastopt.Adam(params)


def test_params_that_are_neither_array_nor_collection_raise():
    with pytest.raises(TypeError, match=r"^params has type float, expected an array, a sequence"):
        fastopt.Adam(1.0)
    with pytest.raises(TypeError, match=r"^params\[1\]\['params'\] has type NoneType, expected"):
        fastopt.Adam([{"params": values(SHAPE)}, {"params": None}])


def test_name_array_pairs_raise_and_suggest_a_dict():
    """torch's named_parameters() returns such pairs."""
    with pytest.raises(
        TypeError, match=r"^params\[0\] has type tuple, .*; pass names and arrays as a dict$"
    ):
        fastopt.Adam([("w", np.ones(3))])


class DataFrame:
    """Behaves like a pandas DataFrame: iterates over names, and is an array only on request."""

    def __iter__(self):
        return iter(["a", "b"])

    def __array__(self, dtype=None, copy=None):
        return np.ones((2, 2))


@pytest.mark.parametrize("thing", ["ab", DataFrame(), range(2)], ids=lambda t: type(t).__name__)
def test_iterable_without_arrays_is_reported_by_its_type(thing):
    message = f"has type {type(thing).__name__}, expected "
    for make, name in (
        (lambda: fastopt.Adam(thing), "params"),
        (lambda: fastopt.Adam([{"params": thing}]), "params[0]['params']"),
        (lambda: fastopt.Adam([values(SHAPE)]).step(thing), "grads"),
    ):
        with pytest.raises(TypeError, match="^" + re.escape(f"{name} {message}")):
            make()


@pytest.mark.parametrize(
    "collection",
    [iter, tuple, collections.deque, lambda a: (x for x in a), lambda a: dict(enumerate(a)).values()],
    ids=["iterator", "tuple", "deque", "generator", "values of a dict"],
)
def test_any_iterable_of_arrays_is_accepted(collection):
    w = [values(SHAPE), values(SHAPE)]
    opt = fastopt.SGD(collection(w), lr=1.0)
    opt.step(collection([a.copy() for a in w]))
    assert [a.any() for a in w] == [False, False]


def test_numpy_scalar_as_parameter_raises():
    with pytest.raises(ValueError, match=r"^params\[0\] is read-only"):
        fastopt.SGD([np.float32(3)])


def test_state_arrays_of_different_dtypes_raise():
    s = {k: [a.astype(np.float16) for a in v] for k, v in scene().items()}
    s["m"] = [a.astype(np.float32) for a in s["m"]]
    for face in FACES.values():
        with refused(TypeError, r"^v\[0\] has dtype float16, unlike m\[0\]", flat(s)):
            face({k: list(v) for k, v in s.items()})


# ---- buffers that overlap ----


def share_memory(place, other, index):
    """Return functions that make the last array of one list the same as one of another list, or overlap it."""

    def whole(s):
        s[place][LAST] = s[other][index]

    def partly(s):
        a = s[other][index]
        memory = np.zeros(a.size + 50, a.dtype)
        s[other][index], s[place][LAST] = (memory[i : a.size + i].reshape(a.shape) for i in (0, 50))

    return {"whole": whole, "partly": partly}


def test_gradients_in_another_container_than_their_groups_raise():
    pair = fastopt.SGD([{"params": [np.ones(3), np.ones(3)]}])
    with pytest.raises(
        TypeError, match=r"^grads\[0\]\['grads'\] has type ndarray, expected a list of arrays"
    ):
        pair.step([{"grads": np.ones((2, 3))}])
    groups = fastopt.SGD([{"params": np.ones(3)}, {"params": np.ones(3)}])
    with pytest.raises(TypeError, match=r"^grads\[0\] has type dict, expected an array"):
        groups.step([{"grads": np.ones(3)}, np.ones(3)])


OVERLAPS = [
    *(("params", "params", 0), ("m", "m", 1), ("m", "params", LAST), ("v", "m", LAST)),
    *(("v", "params", 0), ("grads", "params", LAST), ("grads", "params", 0), ("grads", "v", 1)),
]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("how", ["whole", "partly"])
@pytest.mark.parametrize(("place", "other", "index"), OVERLAPS)
def test_overlapping_arrays_raise(place, other, index, how, face):
    s = scene()
    share_memory(place, other, index)[how](s)
    one, two = re.escape(f"{place}[{LAST}]"), re.escape(f"{other}[{index}]")
    message = f"^({one} and {two}|{two} and {one}) overlap in memory$"
    with refused(ValueError, message, flat(s)):
        FACES[face](s)


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_adjacent_arrays_and_shared_gradients_are_accepted(face):
    s = scene()
    memory = np.zeros((4, 3, *SHAPE), np.float32)
    s = {place: list(block) for place, block in zip(s, memory, strict=True)}
    s["grads"][1] = s["grads"][0]
    face(s)


def test_empty_array_inside_another_is_accepted():
    memory, separate, grad = np.zeros(10, np.float32), np.zeros(0, np.float32), np.ones(8, np.float32)
    inside = memory[4:][:0]
    fastopt.SGD([memory[:8], separate], lr=1.0).step([grad, inside])
    fastopt.SGD([memory[:8], inside], lr=1.0).step([grad, separate])
    assert memory.tolist() == [-2.0] * 8 + [0.0] * 2


# ---- lists as a whole ----

LISTS = {
    "one gradient short": (
        "grads",
        lambda x: x[:2],
        ValueError,
        "grads has 2 arrays, but params has 3",
    ),
    "one too many": ("grads", lambda x: x + x[:1], ValueError, "grads has 4 arrays, but params has 3"),
    "none": ("grads", lambda x: None, TypeError, "grads has type NoneType, expected a list or tuple"),
    "one array": (
        "grads",
        lambda x: x[0],
        TypeError,
        "grads has type ndarray, expected a list or tuple",
    ),
    "one m short": ("m", lambda x: x[:2], ValueError, "m has 2 arrays, but params has 3"),
    "one v too many": ("v", lambda x: x + x[:1], ValueError, "v has 4 arrays, but params has 3"),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("row", LISTS.values(), ids=LISTS)
def test_lists_of_a_different_length_raise(row, face):
    place, bad, kind, message = row
    s = scene()
    all_arrays = flat(s)
    s[place] = bad(s[place])
    with refused(kind, "^" + message, all_arrays):
        FACES[face](s)


def test_function_with_a_list_of_params_requires_a_list_of_state():
    s = scene()
    with refused(TypeError, r"^m has type ndarray, expected a list of arrays", flat(s)):
        F.adam_step(s["params"], s["grads"], s["m"][0], s["v"], step=1)


@pytest.mark.parametrize("clip", [F.clip_grad_norm, F.clip_grad_value], ids=lambda f: f.__name__)
@pytest.mark.parametrize("what", NOT_AN_ARRAY | INVALID_DTYPE | NOT_WRITABLE)
def test_clipping_in_place_rejects_the_same_arrays(clip, what):
    bad, message = (NOT_AN_ARRAY | INVALID_DTYPE | NOT_WRITABLE)[what]
    grads = [values(SHAPE), values(SHAPE, seed=1)]
    kind = ValueError if what in NOT_WRITABLE else TypeError
    with refused(kind, "^" + re.escape(f"grads[2] {message}"), grads):
        clip([*grads, bad(grads[0])], 0.1)
    with refused(kind, "^" + re.escape(f"grads['b'] {message}"), grads):
        clip({"a": grads[0], "b": bad(grads[0])}, 0.1)
    with refused(ValueError, r"^grads\[0\] and grads\[1\] overlap in memory$", grads):
        clip([grads[0], grads[0]], 0.1)


# Ways to pass gradients for two groups, a dict and a list, and how errors refer to the last of them.
GIVEN = {
    "a flat list": (lambda a, b, c: [a, b, c], "grads[2]"),
    "groups": (lambda a, b, c: [{"grads": {"b": b, "a": a}}, {"grads": [c]}], "grads[1]['grads'][0]"),
    "groups of flat lists": (
        lambda a, b, c: ({"grads": g} for g in ([a, b], (c,))),
        "grads[1]['grads'][0]",
    ),
}


@pytest.mark.parametrize(("give", "at"), GIVEN.values(), ids=GIVEN)
def test_arrays_in_groups_are_named_by_their_place(give, at):
    a, b, c = (np.ones(3) for _ in range(3))
    opt = fastopt.Adam([{"params": {"a": a, "b": b}}, {"params": [c]}], on_nonfinite="raise")
    good = [np.ones(3) for _ in range(2)]
    with refused(
        ValueError, "^" + re.escape(f"{at} has shape (2,), but params[1]['params'][0] has (3,)"), [c]
    ):
        opt.step(give(*good, np.ones(2)))
    with refused(FloatingPointError, "^" + re.escape(f"{at} has a NaN"), [a, b, c]):
        opt.step(give(*good, np.full(3, np.nan)))
    with refused(ValueError, "^" + re.escape(f"{at} and params[0]['params']['b'] overlap"), [b]):
        opt.step(give(*good, b))
    opt.v[2] = np.ones(2)
    with refused(ValueError, r"^v\[2\] has shape \(2,\), but params\[1\]\['params'\]\[0\]", [a, b, c]):
        opt.step(give(*good, np.ones(3)))


def test_gradients_by_name_in_groups_are_named_by_name():
    groups = [{"params": {"a": np.ones(3)}}, {"params": {"b": np.ones(3)}}]
    message = "^" + re.escape("grads['b'] has shape (2,), but params[1]['params']['b'] has (3,)")
    with refused(ValueError, message, [group["params"] for group in groups]):
        fastopt.SGD(groups).step({"b": np.ones(2), "a": np.ones(3)})


def test_appending_to_params_makes_step_raise():
    opt = fastopt.Momentum([np.ones(3)])
    opt.params.append(np.ones(3))
    for grads in ([np.ones(3)], [np.ones(3)] * 2):
        with refused(
            ValueError, "^params has 2 arrays, but the optimizer was created with 1$", opt.params
        ):
            opt.step(grads)
    opt.params.pop()
    opt.step([np.ones(3)])
    assert opt.step_count == 1


# ---- arguments of norms and clipping ----

NORMS = {
    "global_norm": (F.global_norm, "arrays"),
    "clip_grad_norm": (lambda x: F.clip_grad_norm(x, 1.0), "grads"),
    "clip_grad_value": (lambda x: F.clip_grad_value(x, 1.0), "grads"),
}


@pytest.mark.parametrize(("of", "role"), NORMS.values(), ids=NORMS)
def test_norms_reject_other_types_and_dtypes(of, role):
    expected = "expected an array, or a list, tuple or dict of arrays$"
    for what, kind in (
        ({"a": 1}.values(), "dict_values"),
        (iter([]), "list_iterator"),
        (None, "NoneType"),
    ):
        with pytest.raises(TypeError, match=f"^{role} has type {kind}, {expected}"):
            of(what)
    one = np.ones(3, int)
    for x, at in (
        (one, role),
        ([one], f"{role}[0]"),
        ((one,), f"{role}[0]"),
        ({"a": one}, f"{role}['a']"),
    ):
        with pytest.raises(TypeError, match="^" + re.escape(f"{at} has dtype int64, expected")):
            of(x)


@pytest.mark.parametrize("face", FACES)
def test_keyboard_interrupt_from_an_array_propagates(face):
    s = scene()
    s["grads"][LAST] = raising_array("__array_interface__", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        FACES[face](s)


class Interrupting:
    """Raises KeyboardInterrupt when converted to a number or an array."""

    def interrupt(self, *_, **__):
        raise KeyboardInterrupt

    __float__ = __index__ = __dlpack__ = interrupt


INTERRUPTED = {
    "a number": lambda w, bad: fastopt.SGD([w], lr=bad),
    "a choice": lambda w, bad: fastopt.SGD([w], clip_norm_type=bad),
    "an integer": lambda w, bad: F.dropout_mask((3,), 0.5, seed=bad),
    "an axis": lambda w, bad: F.dropout_mask((3, 4), 0.5, seed=1, channel_axis=bad),
    "an array": lambda w, bad: F.global_norm([bad]),
}


@pytest.mark.parametrize("call", INTERRUPTED.values(), ids=INTERRUPTED)
def test_keyboard_interrupt_from_a_value_propagates(call):
    with pytest.raises(KeyboardInterrupt):
        call(np.ones(3), Interrupting())


class Finalized:
    """Runs Python code when the dtype that has it in its metadata is freed."""

    call = None

    def __del__(self):
        if self.call:
            self.call()


def test_dtype_cache_survives_a_lookup_from_a_dtype_destructor():
    """All three dtypes share one cache entry. Storing the second one frees the first, whose finalizer looks up
    the third; the third must not remain in the cache under the second's key."""

    def dtypes(kind):
        made = [
            (finalizer, np.dtype(kind, metadata={"end": finalizer}))
            for finalizer in (Finalized() for _ in range(100))
        ]
        return made, lambda slot: [pair for pair in made if id(pair[1]) // 16 % 8 == slot]

    singles, of_slot = dtypes("f4")
    _, wider = dtypes("f8")
    slot = next(s for s in range(8) if len(of_slot(s)) > 1 and wider(s))
    (finalizer, first), (_, second), (_, third) = *of_slot(slot)[:2], wider(slot)[0]
    a, b, c = np.ones(4, first), np.ones(4, second), np.ones(4, third)
    _core.check_array(a, "a")
    finalizer.call = lambda: _core.check_array(c, "c")
    singles.remove((finalizer, first))
    del a, first, finalizer
    _core.check_array(b, "b")
    assert F.global_norm(b) == 2.0
