"""For any memory layout and any kind of array object, a step gives the same bits as for contiguous NumPy arrays
and writes to the given memory."""

import copy
import ctypes

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from fastopt import functional as F
from layouts import (
    FOREIGN,
    GRADS,
    SHAPE,
    TARGETS,
    OldDLPack,
    OnlyDLPack,
    memory_of,
    permuted,
    shifted,
    spread,
)
from optimizers_table import CASES, DTYPES, all_bits, bits, state_bits, values


def stepped(params, grads, **options):
    """The bits of parameters and state after two steps of Adam."""
    opt = fastopt.Adam(params, lr=0.1, **options)
    for _ in range(2):
        opt.step(grads)
    return all_bits(opt.params), state_bits(opt)


# ---- layouts ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grad_layout", GRADS)
@pytest.mark.parametrize("layout", TARGETS)
def test_a_layout_changes_nothing(layout, grad_layout, dtype):
    param, grad = (values(SHAPE, DTYPES[dtype], seed) for seed in (1, 2))
    param, grad = TARGETS[layout](param), GRADS[grad_layout](grad)
    plain_param, plain_grad = np.array(param, order="C"), np.array(grad, order="C")
    # With clipping, the result depends on the norm, which is summed in the parameter's memory order.
    twin_param, twin_grad = param.copy(order="K"), np.empty_like(param)
    twin_grad[...] = grad
    twin = stepped([twin_param], [twin_grad], clip_norm=1.0)
    assert stepped([param.copy(order="K")], [grad], clip_norm=1.0) == twin
    assert stepped([param], [grad]) == stepped([plain_param], [plain_grad])


def orders(ndim):
    return st.permutations(range(ndim)).map(tuple)


@st.composite
def tensors(draw):
    """A parameter with any dense layout and a gradient with any layout, of the same dtype."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    param, grad = (values(shape, dtype, draw(st.integers(0, 99))) for _ in range(2))
    param = permuted(param, draw(orders(len(shape))))
    if param.flags.c_contiguous:
        param = shifted(param, draw(st.integers(0, 63)))
    steps = draw(st.tuples(*[st.sampled_from([-3, -1, 1, 2]) for _ in shape]))
    order = draw(orders(len(shape)))
    grad = spread(grad.transpose(order), steps).transpose(np.argsort(order))
    broadcast = draw(st.tuples(*[st.booleans() for _ in shape]))
    first = tuple(slice(0, 1) if b else slice(None) for b in broadcast)
    return param, np.broadcast_to(grad[first], shape)


@given(st.lists(tensors(), max_size=4), st.sampled_from(sorted(CASES)))
@settings(max_examples=150, deadline=None)
def test_any_list_steps_like_its_contiguous_copies(pairs, rule):
    params, grads = [list(column) for column in zip(*pairs, strict=True)] or ([], [])
    copies = [np.array(p, order="C") for p in params]
    grad_bits = all_bits(grads)
    ours, plain = CASES[rule].make(params), CASES[rule].make(copies)
    ours.step(grads)
    plain.step([np.array(g, order="C") for g in grads])
    assert all_bits(params) == all_bits(copies)
    assert state_bits(ours) == state_bits(plain)
    assert all_bits(grads) == grad_bits


def test_state_has_the_strides_of_its_parameter():
    param = permuted(values((3, 4, 5, 6)), (3, 0, 2, 1))
    assert fastopt.Momentum(param).velocity[0].strides == param.strides


def test_memmap_is_written_to_the_file(tmp_path):
    start, grad = values(1000), values(1000, seed=1)
    start.tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", np.float32, "r+")
    fastopt.SGD(mapped, lr=0.5).step(grad)
    mapped.flush()
    assert bits(np.fromfile(tmp_path / "w", np.float32)) == bits(start - np.float32(0.5) * grad)


# ---- objects other than NumPy arrays ----


@pytest.mark.parametrize("as_grad", FOREIGN)
@pytest.mark.parametrize("as_param", FOREIGN)
def test_foreign_objects_step_like_numpy(as_param, as_grad):
    param, grad = values(1000), values(1000, seed=1)
    made = FOREIGN[as_param](param.copy())
    opt = fastopt.Adam(made, lr=0.1)
    opt.step(FOREIGN[as_grad](grad))
    assert opt.params is made
    fastopt.Adam(param, lr=0.1).step(grad)
    assert bits(memory_of(made)) == bits(param)


@pytest.mark.parametrize("as_param", FOREIGN)
def test_functions_take_foreign_objects_too(as_param):
    param, grad = values(1000), values(1000, seed=1)
    made = [FOREIGN[as_param](a) for a in (param.copy(), grad, np.zeros_like(param))]
    F.momentum_step(*made, lr=0.1)
    velocity = np.zeros_like(param)
    F.momentum_step(param, grad, velocity, lr=0.1)
    assert [bits(memory_of(m)) for m in made] == all_bits([param, grad, velocity])


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_tensors_get_the_bits_of_numpy(torch, dtype):
    param, grad = (torch.randn(4, 3, 50).to(getattr(torch, dtype)) for _ in range(2))
    param = param.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    as_int = torch.int16 if param.element_size() == 2 else param.dtype
    twins = [t.clone().view(as_int).numpy().view(DTYPES[dtype]) for t in (param, grad)]
    opt, twin = fastopt.Adam([param], lr=0.1), fastopt.Adam([twins[0]], lr=0.1)
    opt.step([grad])
    twin.step([twins[1]])
    for ours, theirs in ((param, twins[0]), (opt.m[0], twin.m[0]), (opt.v[0], twin.v[0])):
        assert bits(ours)[2] == theirs.tobytes()
        assert (type(ours), ours.dtype, ours.stride()) == (torch.Tensor, param.dtype, param.stride())


def test_state_dtype_applies_to_torch_state(torch):
    opt = fastopt.Adam(torch.ones(5, dtype=torch.bfloat16), state_dtype="float32")
    opt.step(torch.ones(5, dtype=torch.bfloat16))
    assert opt.m[0].dtype == torch.float32


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


READ_ONLY = {
    "NumPy": read_only,
    "memoryview": lambda a: memoryview(read_only(a)),
    "bytes": lambda a: memoryview(a.tobytes()).cast("f"),
    "__dlpack__": lambda a: OnlyDLPack(read_only(a)),
}


@pytest.mark.parametrize("make", READ_ONLY.values(), ids=READ_ONLY)
def test_read_only_is_accepted_only_for_gradients(make):
    param, grad = values(10), values(10, seed=1)
    expected = param - np.float32(0.5) * grad
    fastopt.SGD(param, lr=0.5).step(make(grad))
    assert bits(param) == bits(expected)
    with pytest.raises(ValueError, match=r"^param is read-only"):
        fastopt.SGD(make(param))


def test_read_only_array_through_old_dlpack_raises():
    with pytest.raises(TypeError, match=r"^grad cannot be read through DLPack: .*readonly"):
        fastopt.SGD(values(10)).step(OldDLPack(read_only(values(10))))


class CopyingDLPack(OnlyDLPack):
    """Can only export a copy, and sets the flag that says so."""

    def __dlpack__(self, *, max_version=None, copy=None, **_):
        if copy is False:
            raise BufferError("not without a copy")
        return self.base.__dlpack__(max_version=max_version, copy=True)


def test_dlpack_copy_is_accepted_only_for_gradients():
    param, grad = values(10), values(10, seed=1)
    expected = param - np.float32(0.5) * grad
    fastopt.SGD(param, lr=0.5).step(CopyingDLPack(grad))
    assert bits(param) == bits(expected)
    with pytest.raises(ValueError, match=r"^param is exported through DLPack as a copy, expected"):
        fastopt.SGD(CopyingDLPack(param), lr=0.5)
    assert bits(param) == bits(expected)


class LazyDLPack(OnlyDLPack):
    """Exports a copy unless copy=False, as the protocol allows."""

    def __dlpack__(self, *, max_version=None, copy=None, **_):
        return self.base.__dlpack__(max_version=max_version, copy=copy is not False)


def test_dlpack_export_requests_no_copy():
    param, grad = values(10), values(10, seed=1)
    expected = param - np.float32(0.5) * grad
    fastopt.SGD(LazyDLPack(param), lr=0.5).step(grad)
    assert bits(param) == bits(expected)


class EditedDLPack(OnlyDLPack):
    """An array with one field of its DLPack struct overwritten: offset in the struct, C type, value."""

    def __init__(self, a, offset, kind, value):
        super().__init__(a)
        self.edit = offset, kind, value

    def __dlpack__(self, **_):
        capsule = self.base.__dlpack__(max_version=(1, 0))
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        tensor = pointer(capsule, b"dltensor_versioned") + 32  # after version, context, deleter, flags
        offset, kind, value = self.edit
        kind.from_address(tensor + offset).value = value
        return capsule


def test_pinned_host_memory_is_host_memory():
    param = values(10)
    expected = param - np.float32(0.5)
    fastopt.SGD(EditedDLPack(param, 8, ctypes.c_int32, 3), lr=0.5).step(np.ones_like(param))
    assert bits(param) == bits(expected)


def test_a_vector_type_of_dlpack_is_refused():
    with pytest.raises(
        TypeError, match=r"^param has DLPack type code 2 with 32 bits, expected float16"
    ):
        fastopt.SGD(EditedDLPack(values(10), 22, ctypes.c_uint16, 2))


# ---- empty and zero-dimensional arrays ----

EMPTY = {"(0,)": (0,), "(3, 0)": (3, 0), "(0, 5) among others": (0, 5)}


@pytest.mark.parametrize("rule", CASES)
@pytest.mark.parametrize("shape", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("around", [{}, {"clip_norm": 1.0}, {"on_nonfinite": "skip"}], ids=str)
def test_empty_arrays_do_nothing(rule, shape, around):
    full, twin, grad = values(7), values(7), values(7, seed=1)
    opt = CASES[rule].make([np.empty(shape, np.float32), full], **around)
    opt.step([np.empty(shape, np.float32), grad])
    CASES[rule].make([twin], **around).step([grad])
    assert bits(full) == bits(twin)
    alone = CASES[rule].make([np.empty(shape)], **around)
    alone.step([np.empty(shape)])
    assert alone.step_count == 1


@pytest.mark.parametrize("rule", CASES)
@pytest.mark.parametrize("none", [[], (), {}], ids=repr)
def test_empty_lists_only_advance_the_step_count(rule, none):
    opt = CASES[rule].make(none, clip_norm=1.0, on_nonfinite="raise")
    opt.step(none)
    assert (opt.params, opt.step_count) == (none if none != () else [], 1)


def test_zero_dimensions():
    param, one = np.array(2.0), np.array([2.0])
    assert stepped([param], [np.array(3.0)])[0][0][3] == stepped([one], [np.array([3.0])])[0][0][3]


# ---- arrays replaced between steps ----


def test_replaced_arrays_are_used_by_the_next_step():
    old, grad = values(50), values(50, seed=1)
    opt = fastopt.Adam([old], lr=0.1)
    opt.step([grad])
    frozen = [bits(a) for a in (old, opt.m[0], opt.v[0])]
    before = old, opt.m[0], opt.v[0]
    opt.params[0], opt.m[0], opt.v[0] = (copy.deepcopy(a) for a in before)
    opt.step([grad])
    assert [bits(a) for a in before] == frozen
    plain = values(50)
    assert stepped([plain], [grad]) == (all_bits(opt.params), state_bits(opt))


def test_resized_arrays_are_noticed():
    param = values(50)
    opt = fastopt.Adam([param], lr=0.1)
    opt.step([values(50, seed=1)])
    param.resize(5000, refcheck=False)
    with pytest.raises(ValueError, match=r"^m\[0\] has shape \(50,\), but params\[0\] has \(5000,\)"):
        opt.step([values(5000)])
    opt.m, opt.v = [np.zeros_like(param)], [np.zeros_like(param)]
    expected = param.copy()
    opt.step([values(5000)])
    F.adam_step(expected, values(5000), np.zeros_like(param), np.zeros_like(param), step=2, lr=0.1)
    assert bits(param) == bits(expected)


def test_bfloat16_is_recognized_in_all_spellings():
    dtype = np.dtype(ml_dtypes.bfloat16)
    for same in (dtype, np.dtype("bfloat16"), dtype.newbyteorder("=")):
        w = np.ones(3, same)
        fastopt.SGD(w, lr=0.5).step(np.ones(3, dtype))
        assert w.astype(float).tolist() == [0.5] * 3


@pytest.mark.parametrize("order", ["=", "<" if np.little_endian else ">"])
def test_native_byte_order_is_recognized_by_both_codes(order):
    dtype = np.dtype(np.float32).newbyteorder(order)
    w = np.ones(3, dtype)
    fastopt.SGD(w, lr=0.5).step(np.ones(3, np.float32))
    assert w.tolist() == [0.5] * 3


def test_another_dtype_of_the_same_size_is_noticed():
    param, grad = np.zeros(4, np.float16), np.ones(4, np.float16)
    opt = fastopt.SGD([param], lr=1.0)
    opt.step([grad])
    before = param.tobytes()
    param.dtype = ml_dtypes.bfloat16
    says = r"^grads\[0\] has dtype float16, but params\[0\] has bfloat16"
    with pytest.raises(TypeError, match=says):
        opt.step([grad])
    assert param.tobytes() == before
