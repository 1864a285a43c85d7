"""A step gives the same bits on a CUDA device as on the CPU, for every rule, convention, storage, layout and
for odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from layouts import TARGETS
from optimizers_table import bits
from step_cases import CASES, EVERYTHING_CASES, PLAIN, RULES, STORAGES, gradients, parameters

# Lengths around vectors of 16 bytes, chunks of 512, 1,024 and 2,048, and the blocks and groups of a norm.
LENGTHS = (0, 1, 3, 15, 16, 17, 255, 1023, 1025, 2047, 2048, 2049, 5000, 70001)
FEW = (5000, 0, 17, 2049)


def lists(case, storage, lengths, seed=0):
    dtype, state_dtype = STORAGES[storage]
    rng = np.random.default_rng(seed)
    params = parameters(rng, lengths, dtype)
    grads = [gradients(rng, params, case) for _ in range(3)]
    return params, grads, state_dtype


def assert_same_steps(cuda, case, params, grads, state_dtype):
    there = [cuda.array(p) for p in params]
    host, device = case.make(params, state_dtype), case.make(there, state_dtype)
    for t, g in enumerate(grads):
        # The constants come from the host at first, and from the device once it has counted by itself.
        host.on_nonfinite = device.on_nonfinite = "skip" if t == 1 else "propagate"
        host.step(g)
        device.step([cuda.array(a) for a in g])
    assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]
    for name, arrays in case.states(device).items():
        assert [bits(cuda.host(a)) for a in arrays] == [bits(a) for a in case.states(host)[name]]
    assert device.step_count == host.step_count == len(grads)


def with_storages(cases):
    """Parametrize each case by each storage that it can have; a rule without state has no wider state."""
    pairs = [(c, s) for c in cases for s in STORAGES if RULES[c.rule] or not STORAGES[s][1]]
    return pytest.mark.parametrize(
        ("case", "storage"), pairs, ids=map("-".join, ((str(c), s) for c, s in pairs))
    )


@with_storages(CASES)
def test_every_rule_and_storage(cuda, case, storage):
    assert_same_steps(cuda, case, *lists(case, storage, FEW))


@pytest.mark.parametrize("storage", STORAGES)
def test_every_length(cuda, storage):
    assert_same_steps(cuda, PLAIN["adam"], *lists(PLAIN["adam"], storage, LENGTHS))


@pytest.mark.parametrize("storage", STORAGES)
def test_lists_with_two_vectors_per_thread(cuda, storage):
    """There are enough elements for each processor; the shim has four of them."""
    more = 1 if "shim" in cuda.name else 40
    lengths = (70001 * more, 2047, 63003 * more, 3)
    assert_same_steps(cuda, PLAIN["adam"], *lists(PLAIN["adam"], storage, lengths))


@pytest.mark.parametrize("storage", [name for name, (_, wide) in STORAGES.items() if not wide])
@pytest.mark.parametrize("rest", [1, 700, 1500, 3001])
def test_array_with_two_vectors_per_thread_at_once(cuda, storage, rest):
    """As above, for a rule without state; at the end only some threads of a block find two vectors."""
    length = (2**17 if "shim" in cuda.name else 2**23) + rest
    assert_same_steps(cuda, PLAIN["sgd"], *lists(PLAIN["sgd"], storage, (length,)))


@pytest.mark.parametrize("length", [33, 1100])
def test_lists_of_more_tensors_than_a_warp_searches_at_once(cuda, length):
    lengths = [1 + 37 * i % 5 for i in range(length)]
    assert_same_steps(cuda, PLAIN["momentum"], *lists(PLAIN["momentum"], "float32", lengths))


@with_storages(EVERYTHING_CASES)
def test_every_length_with_everything_around(cuda, case, storage):
    assert_same_steps(cuda, case, *lists(case, storage, (3, 2049, 9000)))


SHAPE = (3, 1, 40, 51)  # 6120 elements: several chunks, the last one partial


def shifted(a, offset):
    """Return an array that is equal to `a` and begins `offset` bytes after a boundary of 64."""
    memory = np.zeros(a.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    out = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [(s, n) for s, (dtype, _) in STORAGES.items() for n in range(0, 16, dtype.itemsize)],
)
def test_views_of_any_alignment(cuda, dtype, offset):
    """One parameter is shifted together with its gradient, the other alone, so that its arrays share no
    boundary of 16 bytes."""
    params, grads, wide_state = lists(PLAIN["adam"], dtype, (5000, 5000))
    params = [shifted(p, offset) for p in params]
    grads = [[shifted(g[0], offset), g[1]] for g in grads]
    assert_same_steps(cuda, PLAIN["adam"], params, grads, wide_state)


@pytest.mark.parametrize("dtype", [name for name, (_, wide) in STORAGES.items() if not wide])
def test_gradient_of_another_alignment(cuda, dtype):
    """Without state, which is aligned whatever the parameter's alignment, the gradient alone prevents the two
    from being read as vectors."""
    params, grads, _ = lists(PLAIN["sgd"], dtype, (5000,))
    for offset in range(0, 17, params[0].itemsize):
        there = [[shifted(a, offset) for a in g] for g in grads]
        assert_same_steps(cuda, PLAIN["sgd"], [p.copy() for p in params], there, None)


@pytest.mark.parametrize("layout", [name for name in TARGETS if "off" not in name])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_every_layout_of_parameters_and_gradients(cuda, layout, clip):
    rng = np.random.default_rng(0)
    w, g = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    for param, grad in ((TARGETS[layout](w), g), (w.copy(), TARGETS[layout](g))):
        host, there = fastopt.Momentum(param.copy("K"), clip_norm=clip), cuda.array(param)
        device = fastopt.Momentum(there, clip_norm=clip)
        host.step(grad)
        device.step(cuda.array(grad))
        assert bits(cuda.host(there)) == bits(host.params)


@pytest.mark.parametrize("view", [np.s_[..., ::2], np.s_[::-1], np.s_[:, :, 3:, 1:]])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_strided_gradients(cuda, view, clip):
    grads = [np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)[view] for i in range(3)]
    w = np.ones(grads[0].shape, np.float32)
    host, there = fastopt.Adam(w, clip_norm=clip), cuda.array(w)
    device = fastopt.Adam(there, clip_norm=clip)
    for g in (*grads, np.ascontiguousarray(grads[0])):  # finally dense again
        host.step(g)
        device.step(cuda.array(g))
    assert bits(cuda.host(there)) == bits(w)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_gradients_at_the_same_address_with_other_strides(cuda, clip):
    """This happens if a library reuses the last gradient's memory for the next one."""
    base = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    w = np.ones(1000, np.float32)
    host, there = fastopt.Adam(w, clip_norm=clip), cuda.array(w)
    device, memory = fastopt.Adam(there, clip_norm=clip), cuda.array(base)
    for apart in (1, 2, 2, 1, 5, 3, 1, 1):
        host.step(base[: 1000 * apart : apart])
        device.step(memory[: 1000 * apart : apart])
    assert bits(cuda.host(there)) == bits(w)


def test_groups_with_their_own_hyper_parameters_and_dtypes(cuda):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=n).astype(t) for n, t in [(5, "f4"), (3000, "f2"), (7, "f8"), (9, "f4")]]
    grads = [rng.normal(size=a.shape).astype(a.dtype) for a in arrays]

    def groups(arrays):
        return [{"params": arrays[:1], "lr": 0.5}, {"params": arrays[1:], "weight_decay": 0.1}]

    there, grads_there = ([cuda.array(a) for a in own] for own in (arrays, grads))
    host, device = (
        fastopt.Adam(groups(a), lr=0.1, clip_norm=1.0, clip_scope="global") for a in (arrays, there)
    )
    for scope in ("global", "tensor", "global"):
        for opt, g in ((host, grads), (device, grads_there)):
            opt.clip_scope = scope
            opt.groups[0].lr *= 0.5
            opt.step(g)
    assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in arrays]
    assert device.step_count == 3


def test_functional_step(cuda):
    params, grads, _ = lists(PLAIN["adam"], "float32", (5000, 3))
    m, v = ([np.zeros_like(p) for p in params] for _ in range(2))
    there = [[cuda.array(a) for a in arrays] for arrays in (params, m, v)]
    for t, g in enumerate(grads, 1):
        options = {"step": t, "lr": 0.1, "clip_norm": 1.0}
        F.adam_step(params, g, m, v, **options)
        assert F.adam_step(there[0], [cuda.array(a) for a in g], *there[1:], **options)
    for arrays, device_arrays in zip((params, m, v), there, strict=True):
        assert [bits(cuda.host(a)) for a in device_arrays] == [bits(a) for a in arrays]


def test_replaced_state_is_used(cuda):
    w, g = (np.random.default_rng(i).normal(size=3000).astype(np.float32) for i in range(2))
    there = cuda.array(w)
    host, device = fastopt.Momentum(w), fastopt.Momentum(there)
    for opt, grad, own in ((host, g, np.array), (device, cuda.array(g), cuda.array)):
        opt.step(grad)
        opt.velocity = [own(np.full(3000, 0.5, np.float32))]
        opt.step(grad)
        opt.velocity[0] = own(np.full(3000, 0.25, np.float32))
        opt.step(grad)
    assert bits(cuda.host(there)) == bits(w)
    assert device.step_count == 3


def test_resuming_from_a_checkpoint_gives_the_same_bits(cuda):
    params, grads, _ = lists(PLAIN["adam"], "float32", (5000, 3))
    there = [cuda.array(p) for p in params]
    device = fastopt.Adam(there, lr=0.1)
    device.step([cuda.array(g) for g in grads[0]])
    kept, arrays = device.state_dict(), [cuda.host(a) for a in there]
    device.step([cuda.array(g) for g in grads[1]])
    again = [cuda.array(a) for a in arrays]
    other = fastopt.Adam(again)
    other.load_state_dict(kept)
    other.step([cuda.array(g) for g in grads[1]])
    assert other.step_count == 2
    assert [bits(cuda.host(a)) for a in again] == [bits(cuda.host(a)) for a in there]


def test_flush_to_zero_on_the_host_does_not_change_results(cuda):
    """This concerns what the host computes for the device: the constants of a step, and the result of a
    sum."""
    torch = pytest.importorskip("torch", reason="torch is needed to enable flushing")
    ones, zeros = np.full(3, -1.0, np.float32), np.zeros(3, np.float32)
    small = np.arange(1, 600_000) * 5e-324

    def results():
        there = cuda.array(ones)
        fastopt.Adam([there], lr=1.0, eps=1e-40).step([cuda.array(zeros)])
        return bits(cuda.host(there)), F.global_norm([cuda.array(small)])

    before = results()
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        during = results()
    finally:
        torch.set_flush_denormal(False)
    assert during == before
    assert before[0] == bits(ones)


@pytest.mark.parametrize("change", ["scope", "array"])
def test_counts_survive_another_scope_and_other_arrays(cuda, change):
    good, bad = cuda.array(np.ones(2)), cuda.array(np.array([np.inf, 1.0]))
    opt = fastopt.SGD([cuda.array(np.ones(2))], lr=1.0, clip_norm=1.0, on_nonfinite="skip")
    for grad in (bad, good, good):
        opt.step([grad])
    if change == "scope":
        opt.clip_scope = "tensor"
    else:
        opt.params[0] = cuda.array(np.ones(2))
    opt.step([good])
    assert (opt.step_count, opt.skipped_steps) == (3, 1)
