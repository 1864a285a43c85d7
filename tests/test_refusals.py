"""Arrays that do not fit are refused by class and function alike, in words that name the argument, its
index, what was found and what was expected; and then every byte is as it was before."""

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
    """What an array on a GPU looks like from outside."""

    def __init__(self, a):
        pointer = {"data": (a.ctypes.data, False), "version": 3}
        self.__cuda_array_interface__ = {"shape": a.shape, "typestr": a.dtype.str, **pointer}


def failing(name, error):
    """An array whose interface raises."""

    def ask(self):
        raise error

    return type("Freed", (), {name: property(ask)})()


# What makes a bad array of a good one, the kind of error, and what is said of it.
NO_ARRAY = {
    "None": (lambda a: None, f"has type NoneType, expected an array of {ANY_TYPE}"),
    "a list": (lambda a: a.tolist(), f"has type list, expected an array of {ANY_TYPE}"),
    "a number": (lambda a: 1.0, f"has type float, expected an array of {ANY_TYPE}"),
    **{
        f"an array whose {name} raises": (
            lambda a, n=name: failing(n, RuntimeError("it was freed")),
            "cannot be viewed as an array: it was freed",
        )
        for name in ("__array_interface__", "__cuda_array_interface__", "__dlpack__")
    },
    "a CUDA array": (Cuda, f"is a CUDA array (Cuda), but {_core.cuda_trouble()}"),
}
NO_DTYPE = {
    name: (lambda a, d=name: a.astype(d), f"has dtype {np.dtype(name)}, expected {ANY_TYPE}")
    for name in ("int32", "uint8", "bool", "complex64", "longdouble", "object", "S4")
}
NO_DTYPE["the other byte order"] = (
    lambda a: a.astype(a.dtype.newbyteorder("S")),
    f"has dtype {np.dtype(np.float32).newbyteorder('S')}, expected {ANY_TYPE} in native byte order",
)
GAPS = "has shape (4, 25) and strides {strides}, expected a dense array"
NO_TARGET = {
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
        for what, (bad, says) in (NO_ARRAY | NO_DTYPE).items():
            yield f"{place}: {what}", Row(place, bad, TypeError, f"{at} {says}")
        if place == "params":
            continue
        of = f"params[{LAST}] has"
        for dtype in ("float16", "float64"):
            says = f"{at} has dtype {dtype}, but {of} float32"
            yield f"{place}: {dtype}", Row(place, lambda a, d=dtype: a.astype(d), TypeError, says)
        for shape in ((25, 4), (100,), (4, 25, 1)):
            says = f"{at} has shape {shape}, but {of} (4, 25)"
            yield f"{place}: {shape}", Row(place, lambda a, s=shape: a.reshape(s), ValueError, says)
    for place in ("params", "m", "v"):
        for what, (bad, says) in NO_TARGET.items():
            yield f"{place}: {what}", Row(place, bad, ValueError, f"{place}[{LAST}] {says}")
    says = "has strides (4, 16), but params[2] has (100, 4): their elements must have the same order"
    yield "m: another order", Row("m", np.asfortranarray, ValueError, f"m[2] {says}")


ROWS = dict(table())


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_bad_array_is_named(row, face):
    s = scene()
    good = s[row.place][LAST]
    s[row.place][LAST] = row.bad(good)
    everything = [good, *flat(s)]
    with refused(row.kind, "^" + re.escape(row.message), everything):
        FACES[face](s)


PLAIN = (
    "None",
    "a list",
    "a number",
)  # as params they are a sequence, or refused in other words (below)
MADE = [
    (name, form)
    for name, row in ROWS.items()
    for form in ("list", "array", "dict", "groups", "lists in groups", "dicts in groups")
    if row.place == "params" and not (form in ("array", "groups") and name.endswith(PLAIN))
]


@pytest.mark.parametrize(("name", "form"), MADE)
def test_a_bad_parameter_is_refused_when_the_optimizer_is_made(name, form):
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


def test_what_is_neither_array_nor_collection_is_refused():
    with pytest.raises(TypeError, match=r"^params has type float, expected an array, a sequence"):
        fastopt.Adam(1.0)
    with pytest.raises(TypeError, match=r"^params\[1\]\['params'\] has type NoneType, expected"):
        fastopt.Adam([{"params": values(SHAPE)}, {"params": None}])


def test_pairs_of_a_name_and_an_array_are_refused_with_what_to_pass():
    """As torch's named_parameters() gives them."""
    with pytest.raises(
        TypeError, match=r"^params\[0\] has type tuple, .*; pass names and arrays as a dict$"
    ):
        fastopt.Adam([("w", np.ones(3))])


class DataFrame:
    """What one of pandas' looks like from outside: it walks through names, and gives arrays only when asked."""

    def __iter__(self):
        return iter(["a", "b"])

    def __array__(self, dtype=None, copy=None):
        return np.ones((2, 2))


@pytest.mark.parametrize("thing", ["ab", DataFrame(), range(2)], ids=lambda t: type(t).__name__)
def test_what_walks_through_no_arrays_is_named_by_its_own_type(thing):
    says = f"has type {type(thing).__name__}, expected "
    for make, name in (
        (lambda: fastopt.Adam(thing), "params"),
        (lambda: fastopt.Adam([{"params": thing}]), "params[0]['params']"),
        (lambda: fastopt.Adam([values(SHAPE)]).step(thing), "grads"),
    ):
        with pytest.raises(TypeError, match="^" + re.escape(f"{name} {says}")):
            make()


@pytest.mark.parametrize(
    "collection",
    [iter, tuple, collections.deque, lambda a: (x for x in a), lambda a: dict(enumerate(a)).values()],
    ids=["iterator", "tuple", "deque", "generator", "values of a dict"],
)
def test_whatever_walks_through_arrays_is_a_collection(collection):
    w = [values(SHAPE), values(SHAPE)]
    opt = fastopt.SGD(collection(w), lr=1.0)
    opt.step(collection([a.copy() for a in w]))
    assert [a.any() for a in w] == [False, False]


def test_a_numpy_scalar_is_no_target():
    with pytest.raises(ValueError, match=r"^params\[0\] is read-only"):
        fastopt.SGD([np.float32(3)])


def test_mixed_widths_of_state_are_refused():
    s = {k: [a.astype(np.float16) for a in v] for k, v in scene().items()}
    s["m"] = [a.astype(np.float32) for a in s["m"]]
    for face in FACES.values():
        with refused(TypeError, r"^v\[0\] has dtype float16, unlike m\[0\]", flat(s)):
            face({k: list(v) for k, v in s.items()})


# ---- buffers that overlap ----


def shares(place, other, index):
    """The last array of one list is an array of another, or lies half in it."""

    def whole(s):
        s[place][LAST] = s[other][index]

    def partly(s):
        a = s[other][index]
        memory = np.zeros(a.size + 50, a.dtype)
        s[other][index], s[place][LAST] = (memory[i : a.size + i].reshape(a.shape) for i in (0, 50))

    return {"whole": whole, "partly": partly}


def test_gradients_of_groups_in_another_form_are_refused():
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
def test_overlaps_are_refused(place, other, index, how, face):
    s = scene()
    shares(place, other, index)[how](s)
    one, two = re.escape(f"{place}[{LAST}]"), re.escape(f"{other}[{index}]")
    says = f"^({one} and {two}|{two} and {one}) overlap in memory$"
    with refused(ValueError, says, flat(s)):
        FACES[face](s)


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_neighbours_and_shared_gradients_are_no_overlap(face):
    s = scene()
    memory = np.zeros((4, 3, *SHAPE), np.float32)
    s = {place: list(block) for place, block in zip(s, memory, strict=True)}
    s["grads"][1] = s["grads"][0]
    face(s)


def test_an_empty_array_inside_another_is_no_overlap():
    room, apart, grad = np.zeros(10, np.float32), np.zeros(0, np.float32), np.ones(8, np.float32)
    inside = room[4:][:0]
    fastopt.SGD([room[:8], apart], lr=1.0).step([grad, inside])
    fastopt.SGD([room[:8], inside], lr=1.0).step([grad, apart])
    assert room.tolist() == [-2.0] * 8 + [0.0] * 2


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
def test_lists_of_another_length_are_refused(row, face):
    place, bad, kind, says = row
    s = scene()
    everything = flat(s)
    s[place] = bad(s[place])
    with refused(kind, "^" + says, everything):
        FACES[face](s)


def test_a_function_wants_a_list_of_state_for_a_list_of_parameters():
    s = scene()
    with refused(TypeError, r"^m has type ndarray, expected a list of arrays", flat(s)):
        F.adam_step(s["params"], s["grads"], s["m"][0], s["v"], step=1)


@pytest.mark.parametrize("clip", [F.clip_grad_norm, F.clip_grad_value], ids=lambda f: f.__name__)
@pytest.mark.parametrize("what", NO_ARRAY | NO_DTYPE | NO_TARGET)
def test_clipping_in_place_refuses_the_same(clip, what):
    bad, says = (NO_ARRAY | NO_DTYPE | NO_TARGET)[what]
    grads = [values(SHAPE), values(SHAPE, seed=1)]
    kind = ValueError if what in NO_TARGET else TypeError
    with refused(kind, "^" + re.escape(f"grads[2] {says}"), grads):
        clip([*grads, bad(grads[0])], 0.1)
    with refused(kind, "^" + re.escape(f"grads['b'] {says}"), grads):
        clip({"a": grads[0], "b": bad(grads[0])}, 0.1)
    with refused(ValueError, r"^grads\[0\] and grads\[1\] overlap in memory$", grads):
        clip([grads[0], grads[0]], 0.1)


# How gradients are given for two groups, a dict and a list, and what the last of them is called then.
GIVEN = {
    "a flat list": (lambda a, b, c: [a, b, c], "grads[2]"),
    "groups": (lambda a, b, c: [{"grads": {"b": b, "a": a}}, {"grads": [c]}], "grads[1]['grads'][0]"),
    "groups of flat lists": (
        lambda a, b, c: ({"grads": g} for g in ([a, b], (c,))),
        "grads[1]['grads'][0]",
    ),
}


@pytest.mark.parametrize(("give", "at"), GIVEN.values(), ids=GIVEN)
def test_arrays_in_groups_are_named_as_they_were_given(give, at):
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


def test_gradients_by_name_are_named_so_in_groups_too():
    groups = [{"params": {"a": np.ones(3)}}, {"params": {"b": np.ones(3)}}]
    says = "^" + re.escape("grads['b'] has shape (2,), but params[1]['params']['b'] has (3,)")
    with refused(ValueError, says, [group["params"] for group in groups]):
        fastopt.SGD(groups).step({"b": np.ones(2), "a": np.ones(3)})


def test_a_list_of_parameters_that_has_grown_is_refused_in_these_words():
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


# ---- what norms and clipping take ----

NORMS = {
    "global_norm": (F.global_norm, "arrays"),
    "clip_grad_norm": (lambda x: F.clip_grad_norm(x, 1.0), "grads"),
    "clip_grad_value": (lambda x: F.clip_grad_value(x, 1.0), "grads"),
}


@pytest.mark.parametrize(("of", "role"), NORMS.values(), ids=NORMS)
def test_norms_say_what_they_take(of, role):
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
def test_an_interrupt_is_not_taken_for_a_bad_array(face):
    s = scene()
    s["grads"][LAST] = failing("__array_interface__", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        FACES[face](s)


class Interrupting:
    """Raises KeyboardInterrupt wherever a number or an array is asked for."""

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
def test_an_interrupt_is_not_taken_for_a_bad_value(call):
    with pytest.raises(KeyboardInterrupt):
        call(np.ones(3), Interrupting())


class Finalized:
    """In a dtype's metadata: runs Python code when the dtype is freed."""

    call = None

    def __del__(self):
        if self.call:
            self.call()


def test_a_dtype_whose_end_asks_for_another_is_forgotten_safely():
    """All three dtypes share an entry of the cache: freeing the first one, to store the second, looks up the
    third, which must not be left there under the second's name."""

    def dtypes(kind):
        made = [
            (end, np.dtype(kind, metadata={"end": end})) for end in (Finalized() for _ in range(100))
        ]
        return made, lambda slot: [pair for pair in made if id(pair[1]) // 16 % 8 == slot]

    singles, of_slot = dtypes("f4")
    _, wider = dtypes("f8")
    slot = next(s for s in range(8) if len(of_slot(s)) > 1 and wider(s))
    (end, first), (_, second), (_, third) = *of_slot(slot)[:2], wider(slot)[0]
    a, b, c = np.ones(4, first), np.ones(4, second), np.ones(4, third)
    _core.check_array(a, "a")
    end.call = lambda: _core.check_array(c, "c")
    singles.remove((end, first))
    del a, first, end
    _core.check_array(b, "b")
    assert F.global_norm(b) == 2.0
