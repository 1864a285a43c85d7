"""Tensors that describe themselves through a C function (DLPack 1.3), as torch's do, without a call into
Python, on the host and on a device. A torch tensor that is more than an array is rejected or, by optimizers,
accepted."""

from __future__ import annotations

import copy
import ctypes

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import bits, values
from step_cases import PLAIN


def tensors(torch, arrays):
    return [torch.from_numpy(a.copy()) for a in arrays]


def lists(seed=0):
    """Return parameters and three lists of gradients for them."""
    shapes = ((3,), (40, 51), (), (0, 4))
    draw = lambda s: [values(shape, seed=s + i) for i, shape in enumerate(shapes)]  # noqa: E731
    return draw(seed), [draw(seed + 10 * k) for k in (1, 2, 3)]


# ---- torch ----


@pytest.mark.parametrize("rule", PLAIN)
def test_parameters_of_a_model(torch, rule):
    """They require gradients, but an optimizer may write to them. The gradients of each step are new
    tensors."""
    params, grads = lists()
    own = [torch.nn.Parameter(t) for t in tensors(torch, params)]
    ours, host = PLAIN[rule].make(own), PLAIN[rule].make(params)
    for g in grads:
        ours.step(tensors(torch, g))
        host.step(g)
    assert [bits(p.detach().numpy()) for p in own] == [bits(p) for p in params]
    assert all(p.requires_grad for p in own)
    for name, arrays in PLAIN[rule].states(ours).items():
        assert all(type(a) is torch.Tensor and not a.requires_grad for a in arrays)
        assert [bits(a.numpy()) for a in arrays] == [bits(a) for a in PLAIN[rule].states(host)[name]]


def test_training_a_model_matches_torch(torch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    twin = copy.deepcopy(net)
    ours, theirs = (
        fastopt.Adam(dict(net.named_parameters()), lr=0.01),
        torch.optim.Adam(twin.parameters(), lr=0.01),
    )
    x = torch.randn(32, 4, dtype=torch.float64)
    for _ in range(20):
        for each in (net, twin):
            each.zero_grad()
            ((each(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
        ours.step({name: p.grad for name, p in net.named_parameters()})
        theirs.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_no_call_into_python_is_needed(torch, monkeypatch):
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("torch has the C functions from version 2.10 on")
    for name in ("__dlpack__", "__array__", "numpy", "data_ptr", "stride"):
        monkeypatch.setattr(torch.Tensor, name, None)
    w = torch.ones(3)
    opt = fastopt.Momentum([w], lr=0.5)
    opt.step([torch.ones(3)])
    opt.step([torch.ones(3)])
    assert w.tolist() != [1.0] * 3


def test_changes_of_a_parameter_between_steps_are_noticed(torch):
    """Its memory, layout or dtype may change between steps, although it is the same object."""
    w = torch.arange(6.0).reshape(2, 3)
    opt = fastopt.SGD([w], lr=1.0)
    opt.step([torch.ones(2, 3)])
    before = w.clone()
    w.t_()
    opt.step([torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])])
    assert (w == before.t() - torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).all()
    with pytest.raises(
        ValueError, match=r"grads\[0\] has shape \(2, 3\), but params\[0\] has \(3, 2\)"
    ):
        opt.step([torch.ones(2, 3)])
    old, w.data = w.data, torch.zeros(3, 2)
    kept = old.clone()
    opt.step([torch.ones(3, 2)])
    assert w.tolist() == [[-1.0, -1.0]] * 3
    assert (old == kept).all()
    w.data = w.data.double()
    with pytest.raises(TypeError, match=r"grads\[0\] has dtype float32, but params\[0\] has float64"):
        opt.step([torch.ones(3, 2)])


def test_gradients_of_any_layout(torch):
    w, g = values((4, 6)), values((6, 4), seed=1)
    there = torch.from_numpy(w.copy())
    F.sgd_step(there, torch.from_numpy(g).t(), lr=0.5)
    F.sgd_step(w, g.T, lr=0.5)
    assert bits(there.numpy()) == bits(w)


def test_layer_input_that_requires_grad_is_rejected(torch):
    x = torch.ones(4, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"x requires grad, .* pass x\.detach\(\)"):
        F.batch_norm_forward(x)
    F.batch_norm_forward(x.detach())


@pytest.mark.parametrize("nothing_recorded", ["no_grad", "inference_mode"])
def test_tensors_that_require_grad_are_accepted_where_torch_records_nothing(torch, nothing_recorded):
    layer = fastopt.BatchNorm(3)
    x = torch.from_numpy(values((4, 3))).requires_grad_()
    own = torch.nn.Parameter(x.detach().clone())
    with getattr(torch, nothing_recorded)():
        y = layer(x)
        dx = layer.backward(x)
        F.dropout_forward(x, 0.5, seed=0, out=own)
        norm = F.global_norm([x, own])
    plain = fastopt.BatchNorm(3)
    assert bits(y.numpy()) == bits(plain(x.detach()).numpy())
    assert bits(dx.numpy()) == bits(plain.backward(x.detach()).numpy())
    assert norm == F.global_norm([x.detach(), own.detach()])
    with pytest.raises(TypeError, match=r"arrays\[1\] requires grad"):
        F.global_norm([x.detach(), own])


def test_autograd_function_may_pass_its_tensors_as_they_are(torch):
    class Dropout(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y, ctx.saved = F.dropout_forward(x, 0.5, seed=0)
            return y

        @staticmethod
        def backward(ctx, dy):
            return F.dropout_backward(dy, ctx.saved)

    x = torch.from_numpy(values((40,))).requires_grad_()
    y = Dropout.apply(x)
    y.sum().backward()
    assert torch.equal(y, x * x.grad)
    with pytest.raises(TypeError, match="dy requires grad"):  # no second derivative would be recorded
        torch.autograd.grad(Dropout.apply(x).square().sum(), x, create_graph=True)


UNSUPPORTED = {
    "negated view": (
        lambda torch: torch.tensor([1 + 2j]).conj().imag,
        r"has its negative bit set .*; pass .*\.resolve_neg\(\)",
    ),
    "sparse": (
        lambda torch: torch.ones(1).to_sparse(),
        r"is sparse \(torch\.sparse_coo\), expected a dense array; pass grad\.to_dense\(\)",
    ),
    "meta": (lambda torch: torch.ones(1, device="meta"), "cannot be read through DLPack"),
    "zeros without memory": (
        lambda torch: torch._efficientzerotensor(1),
        "no memory of its own|DLPack",
    ),
    "integers": (lambda torch: torch.ones(1, dtype=torch.int32), "has dtype int32, expected float16"),
    "bytes": (lambda torch: torch.ones(1, dtype=torch.uint8), "has dtype uint8, expected float16"),
    "truth values": (lambda torch: torch.ones(1) > 0, "has dtype bool, expected float16"),
    "complex": (lambda torch: torch.ones(1).cfloat(), "has dtype complex64, expected float16"),
    "a type of few libraries": (
        lambda torch: torch.ones(1).to(torch.float8_e5m2),
        "has DLPack type code 12 with 8 bits, expected float16",
    ),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_tensors_are_rejected(torch, kind):
    make, words = UNSUPPORTED[kind]
    w = torch.ones(1)
    with pytest.raises(TypeError, match=f"grad .*{words}") as refused:
        F.sgd_step(w, make(torch), lr=1.0)
    assert "\n" not in str(refused.value), "the message must not include torch's C++ stack"
    assert w.tolist() == [1.0]


def test_sparse_embedding_gradient_is_rejected_with_a_hint(torch):
    table = torch.nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    opt = fastopt.SGD(list(table.parameters()), lr=1.0)
    with pytest.raises(TypeError, match=r"^grads\[0\] is sparse .* pass grads\[0\]\.to_dense\(\)$"):
        opt.step([table.weight.grad])
    opt.step([table.weight.grad.to_dense()])


def test_subclass_is_read_through_its_own_methods(torch):
    class Own(torch.Tensor):
        pass

    w = torch.ones(3).as_subclass(Own)
    F.sgd_step(w, torch.ones(3).as_subclass(Own), lr=0.25)
    assert w.tolist() == [0.75] * 3


# torch cannot make a subclass of a sparse tensor.
@pytest.mark.parametrize("kind", sorted({*UNSUPPORTED} - {"sparse"}))
def test_unsupported_subclasses_are_rejected(torch, kind):
    class Own(torch.Tensor):
        pass

    make, words = UNSUPPORTED[kind]
    with pytest.raises(TypeError, match=f"grad .*({words}|cannot be read)"):
        F.sgd_step(torch.ones(1), make(torch).as_subclass(Own), lr=1.0)


def test_parameter_subclass_can_be_stepped(torch):
    class Own(torch.nn.Parameter):
        pass

    w = Own(torch.ones(3))
    fastopt.SGD(w, lr=0.25).step(torch.ones(3))
    assert w.tolist() == [0.75] * 3


@pytest.mark.parametrize("axes", [70, 301])
def test_too_many_axes_are_rejected(torch, axes):
    x = torch.zeros(0).as_strided([0, *[2] * (axes - 1)], [1, *[3] * (axes - 1)])
    for call in (F.global_norm, lambda x: F.dropout_forward(x, 0.5, seed=0)):
        with pytest.raises(ValueError, match=f" has {axes} axes, expected at most 64"):
            call(x)


# ---- on a device ----


class Described(ctypes.Structure):
    """The C struct DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


DESCRIBE = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Described))
STREAM = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)
)


class Functions(ctypes.Structure):
    """The C struct DLPackExchangeAPI, also as the previous version of one that fastopt does not know."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("unused", ctypes.c_void_p * 3),
        ("describe", DESCRIBE),
        ("stream", STREAM),
    )


@pytest.fixture
def exchanged(cuda):
    """Return a function that makes shim arrays into CUDA tensors, of a type that fastopt takes for
    torch's."""
    if cuda.name != "shim":
        pytest.skip("needs the shim's plain arrays; a device is tested with torch's own")
    asked = {"described": 0, "streams": 0, "negated": 0}

    def describe(tensor, out):
        asked["described"] += 1
        view = tensor.view
        strides = [s // view.itemsize for s in view.strides]
        tensor.numbers = (ctypes.c_int64 * (2 * view.ndim))(*view.shape, *strides)
        first = ctypes.cast(tensor.numbers, ctypes.POINTER(ctypes.c_int64))
        second = ctypes.cast(
            ctypes.byref(tensor.numbers, 8 * view.ndim), ctypes.POINTER(ctypes.c_int64)
        )
        out[0] = (view.ctypes.data, 2, 0, view.ndim, 2, 32, 1, first, second, 0)
        return 0

    def stream(device_type, device, out):
        asked["streams"] += 1
        out[0] = cuda.stream
        return 0

    def is_neg(tensor):
        asked["negated"] += 1
        return False

    functions = Functions(1, 3, None, (ctypes.c_void_p * 3)(), DESCRIBE(describe), STREAM(stream))
    newer = Functions(2, 0, ctypes.addressof(functions), (ctypes.c_void_p * 3)(), DESCRIBE(), STREAM())
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    Tensor = type(
        "Tensor",
        (type(cuda.array(np.ones(1))),),
        {
            "__module__": "torch",
            "__dlpack_c_exchange_api__": make(ctypes.addressof(newer), b"dlpack_exchange_api", None),
            "requires_grad": False,
            "is_neg": is_neg,
            "functions": (functions, newer),  # kept alive by the type
        },
    )
    Parameter = type("Parameter", (Tensor,), {"__module__": "torch.nn.parameter"})

    def tensor(host, kind=Tensor):
        array = cuda.array(host)
        array.__class__ = kind
        return array

    tensor.asked, tensor.parameter = asked, lambda host: tensor(host, Parameter)
    return tensor


def test_tensors_on_a_device(cuda, exchanged):
    w, g = values((40, 51)), values((51, 40), seed=1)
    there, grad = exchanged(w), exchanged(g)
    grad.view = grad.view.T
    with cuda.new_stream():
        F.sgd_step(there, grad, lr=0.5)
    F.sgd_step(w, g.T, lr=0.5)
    assert bits(cuda.host(there)) == bits(w)
    assert exchanged.asked["described"] > 1
    assert exchanged.asked["streams"] > 0


def test_repeated_gradient_is_located_again(cuda, exchanged):
    """Only its location is requested, and the gradient is read where it is by then."""
    w, first, second = (values((3, 3), seed=i) for i in range(3))
    there, grad, other = exchanged.parameter(w), exchanged(first), exchanged(second)
    ours, host = fastopt.SGD([there], lr=0.5), fastopt.SGD([w], lr=0.5)

    def step(g):
        exchanged.asked.update(described=0, streams=0, negated=0)
        ours.step([grad])
        host.step([g])
        assert bits(cuda.host(there)) == bits(w)
        return dict(exchanged.asked)

    calls = [step(first) for _ in range(3)]
    assert calls[0]["negated"] > 0
    assert calls[2] == {"described": 2, "streams": 1, "negated": 0}
    grad.view = grad.view.T
    step(first.T)
    grad.view = other.view
    calls = [step(second) for _ in range(3)]
    assert calls[2]["negated"] == 0


def test_gradient_that_moved_during_a_failed_step(cuda, exchanged):
    w, first, second = (values((3, 3), seed=i) for i in range(3))
    there, grad, other = exchanged(w), exchanged(first), exchanged(second)
    ours, host = fastopt.SGD([there, exchanged(w)], lr=0.5), fastopt.SGD([w], lr=0.5)
    for _ in range(3):
        ours.step([grad, grad])
        host.step([first])
    grad.view, before = other.view, grad.view
    with pytest.raises(ValueError, match=r"grads\[1\] has shape \(1,\)"):
        ours.step([grad, exchanged(np.ones(1, np.float32))])
    grad.view = before
    ours.step([grad, grad])
    host.step([first])
    assert bits(cuda.host(there)) == bits(w)


def test_capture_of_torchs_current_stream(cuda, exchanged):
    """Work runs on the stream that the C function returns."""
    x = values((4, 6, 5))
    there = exchanged(x)
    out = exchanged(np.zeros_like(x))
    with cuda.new_stream():
        replay = cuda.capture(lambda: F.dropout_forward(there, 0.5, seed=3, out=out))
        assert not cuda.host(out).any()
        replay()
    want, _ = F.dropout_forward(x, 0.5, seed=3)
    assert bits(cuda.host(out)) == bits(want)
