"""Counts, hyper-parameters, clip coefficients and the skip flag are stored on the device. A step therefore
needs nothing from the host, and a captured graph continues as the optimizer would."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import bits
from step_cases import PLAIN, gradients, parameters

LENGTHS = (5000, 3, 2049)


def lists(cuda, seed=0, lengths=LENGTHS):
    rng = np.random.default_rng(seed)
    params = parameters(rng, lengths, np.dtype(np.float32))
    grads = gradients(rng, params)
    return params, grads, [cuda.array(p) for p in params], [cuda.array(g) for g in grads]


@pytest.mark.parametrize("rule", PLAIN)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_replays_give_the_same_bits_as_steps(cuda, rule, clip):
    """Between replays the learning rate changes, and other values are written into the gradient."""
    params, grads, there, device_grads = lists(cuda)
    host, device = PLAIN[rule].make(params), PLAIN[rule].make(there)
    host.clip_norm = device.clip_norm = clip
    with cuda.new_stream():
        device.step(device_grads)
        replay = cuda.capture(lambda: device.step(device_grads))
        assert device.step_count == 1  # captured work has not run
        host.step(grads)
        for i in range(40):
            if i % 10 == 9:
                host.lr = device.lr = host.lr / 2
                grads[0][i] = device_grads[0][i] = i
            replay()
            host.step(grads)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]
        assert device.step_count == 41


@pytest.mark.parametrize("groups", [1, 4, 5])
def test_graph_continues_after_steps_with_constants_from_the_host(cuda, groups):
    """For as many groups as the kernel arguments have room for, and for more."""
    params, grads, there, device_grads = lists(cuda, lengths=(2049, 1, 5000, 17, 3))

    def optimizer(own):
        parts = [own[: 6 - groups], *([a] for a in own[6 - groups :])]
        return fastopt.Adam([{"params": part, "lr": 0.1 / (i + 1)} for i, part in enumerate(parts)])

    host, device = optimizer(params), optimizer(there)
    with cuda.new_stream():
        for _ in range(3):
            device.step(device_grads)
            host.step(grads)
        replay = cuda.capture(lambda: device.step(device_grads))
        for step in (replay, lambda: device.step(device_grads), replay):
            step()
            host.step(grads)
        assert device.step_count == 6
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_a_thousand_replays(cuda):
    params, grads, there, device_grads = lists(cuda)
    host, device = fastopt.Adam(params), fastopt.Adam(there)
    with cuda.new_stream():
        replay = cuda.capture(lambda: device.step(device_grads))
        for _ in range(1000):
            replay()
            host.step(grads)
        assert device.step_count == 1000
        device.step(device_grads)  # ordinary steps continue from there
        host.step(grads)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_a_graph_keeps_its_gradients(cuda):
    """Ordinary steps in between, with gradients at other addresses, do not affect the graph."""
    params, grads, there, device_grads = lists(cuda)
    other, other_there = lists(cuda, 1)[1], lists(cuda, 1)[3]
    host, device = fastopt.Adam(params, clip_norm=1.0), fastopt.Adam(there, clip_norm=1.0)
    with cuda.new_stream():
        replay = cuda.capture(lambda: device.step(device_grads))
        for _ in range(3):
            replay()
            host.step(grads)
            device.step(other_there)
            host.step(other)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_graph_skips_nonfinite_gradients(cuda):
    params, grads, there, device_grads = lists(cuda)
    host, device = (fastopt.Adam(p, on_nonfinite="skip") for p in (params, there))
    with cuda.new_stream():
        replay = cuda.capture(lambda: device.step(device_grads))
        for i in range(6):
            grads[1][2] = device_grads[1][2] = np.inf if i % 2 else 1.0
            replay()
            host.step(grads)
        assert (device.step_count, device.skipped_steps) == (3, 3)
        assert (host.step_count, host.skipped_steps) == (3, 3)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_graph_keeps_the_norm_type_of_its_capture(cuda):
    """The limit, however, is the optimizer's current one."""
    params, grads, there, device_grads = lists(cuda)
    host, device = (fastopt.SGD(p, clip_norm=1.0) for p in (params, there))
    with cuda.new_stream():
        device.step(device_grads)
        replay = cuda.capture(lambda: device.step(device_grads))
        host.step(grads)
        for norm, kind in ((0.5, "1"), (0.25, "max"), (None, "2"), (2.0, "1")):
            host.clip_norm = device.clip_norm = norm
            device.clip_norm_type = kind
            replay()
            host.step(grads)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


@pytest.mark.parametrize("owner", ["optimizer", "group"])
def test_setting_lr_during_a_capture_raises_and_changes_nothing(cuda, owner):
    params, grads, there, device_grads = lists(cuda)
    host, device = (fastopt.SGD([{"params": p}], lr=0.5) for p in (params, there))

    def step():
        with pytest.raises(RuntimeError, match="change it before or after"):
            (device if owner == "optimizer" else device.groups[0]).lr = 0.25
        device.step(device_grads)

    with cuda.new_stream():
        device.step(device_grads)
        replay = cuda.capture(step)
        assert (device.lr, device.groups[0].lr, repr(device.groups[0])) == (0.5, 0.5, "Group()")
        replay()
        device.step(device_grads)
        for _ in range(3):
            host.step(grads)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


@pytest.mark.parametrize("count", ["step_count", "skipped_steps"])
def test_setting_a_count_during_a_capture_raises_and_changes_nothing(cuda, count):
    """Every replay would set it again."""
    params, grads, there, device_grads = lists(cuda)
    host, device = fastopt.Adam(params), fastopt.Adam(there)

    def step():
        with pytest.raises(RuntimeError, match="set it before or after"):
            setattr(device, count, 7)
        device.step(device_grads)

    with cuda.new_stream():
        device.step(device_grads)
        host.step(grads)
        replay = cuda.capture(step)
        for _ in range(3):
            replay()
            host.step(grads)
        assert (device.step_count, device.skipped_steps) == (4, 0)
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_clip_scope_may_change_until_a_graph_is_captured(cuda, scope):
    """A graph holds the addresses of the tables that are built for a scope."""
    params, grads, there, device_grads = lists(cuda)
    host, device = (fastopt.Adam(p, clip_norm=1.0, clip_scope=scope) for p in (params, there))
    other = {"global": "tensor", "tensor": "global"}[scope]

    def steps(device_step):
        for _ in range(2):
            device_step()
            host.step(grads)

    with cuda.new_stream():
        steps(lambda: device.step(device_grads))
        host.clip_scope = device.clip_scope = other
        steps(lambda: device.step(device_grads))
        replay = cuda.capture(lambda: device.step(device_grads))
        with pytest.raises(RuntimeError, match="clip_scope cannot be changed any more"):
            device.clip_scope = scope
        assert device.clip_scope == other
        steps(replay)
        steps(lambda: device.step(device_grads))
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_graph_survives_a_rejected_step(cuda):
    """The step is rejected because a parameter does not match the state. With the old parameter back,
    everything is as before."""
    params, grads, there, device_grads = lists(cuda)
    host, device = (fastopt.Adam(p, clip_norm=1.0) for p in (params, there))
    own = there[1]
    with cuda.new_stream():
        replay = cuda.capture(lambda: device.step(device_grads))
        device.params[1] = cuda.array(np.ones(4, np.float32))
        with pytest.raises(ValueError, match=r"m\[1\] has shape \(3,\)"):
            device.step(device_grads)
        device.params[1] = own
        for step in (replay, lambda: device.step(device_grads), replay):
            step()
            host.step(grads)
        assert device.step_count == 3
        assert [bits(cuda.host(a)) for a in there] == [bits(a) for a in params]


def test_new_arrays_during_a_capture_are_rejected(cuda):
    _, _, there, device_grads = lists(cuda)
    opt = fastopt.SGD(there, lr=0.5)
    opt.step(device_grads)

    def work():
        opt.params[1] = cuda.array(np.ones(3, np.float32))
        opt.step(device_grads)

    with cuda.new_stream(), pytest.raises(RuntimeError, match="new to it"):
        cuda.capture(work)


def test_on_nonfinite_raise_cannot_be_captured(cuda):
    _, _, there, device_grads = lists(cuda)
    device = fastopt.Adam(there, on_nonfinite="raise")
    before = [bits(cuda.host(a)) for a in there]
    with cuda.new_stream():
        with pytest.raises(RuntimeError, match="waits for the device"):
            cuda.capture(lambda: device.step(device_grads))
        assert [bits(cuda.host(a)) for a in there] == before


@pytest.mark.parametrize("n", [1, 161])
@pytest.mark.parametrize(
    "options", [{}, {"clip_norm": 1.0}, {"clip_norm": 1.0, "on_nonfinite": "skip"}]
)
def test_step_takes_few_launches_and_no_synchronization(cuda, n, options):
    if cuda.name != "shim":
        pytest.skip("only the shim counts launches")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=300).astype(np.float32) for _ in range(n)]
    opt = fastopt.Adam([cuda.array(a) for a in arrays], **options)
    grads = [cuda.array(a) for a in arrays]
    opt.step(grads)
    cuda.counts()
    for _ in range(3):
        opt.step(grads)
    before = 3 if options else 0  # norms of groups of blocks, their combination, the constants
    assert cuda.counts() == {
        "launches": 3 * (before + 1),
        "clustered": 0,
        "allocations": 0,
        "synchronisations": 0,
        "copies": 0,
    }


# ---- layers ----

WAITS = {
    "global_norm": lambda x, saved, opt: F.global_norm([x]),
    "clip_grad_norm": lambda x, saved, opt: F.clip_grad_norm([x], 1.0),
    "batch_norm_moments": lambda x, saved, opt: F.batch_norm_moments(x),
    "batch_norm_backward_reduce": lambda x, saved, opt: F.batch_norm_backward_reduce(x, saved),
    "mean": lambda x, saved, opt: saved.mean,
    "step_count": lambda x, saved, opt: opt.step_count,
}


@pytest.mark.parametrize("call", WAITS)
def test_synchronizing_call_is_rejected_and_the_capture_continues(cuda, call):
    """CUDA itself would reject the synchronization of the stream, and invalidate the capture."""
    w, x = (cuda.array(np.ones((6, 4), np.float32)) for _ in range(2))
    opt = fastopt.SGD([w], lr=0.25, on_nonfinite="skip")

    def work():
        with pytest.raises(RuntimeError, match="waits for the device"):
            WAITS[call](x, saved, opt)
        opt.step([x])

    with cuda.new_stream():
        saved = F.batch_norm_forward(x)[1]
        opt.step([x])
        replay = cuda.capture(work)
        replay()
        assert opt.step_count == 2
        assert cuda.host(w).tolist() == [[0.5] * 4] * 6


def test_a_captured_layer_is_replayed(cuda):
    """Ordinary passes run before and in between; each one frees what the last pass has saved for backward."""
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(6, 5, 4, 3)).astype(np.float32) for _ in range(2))
    mean, var = np.zeros(5, np.float32), np.ones(5, np.float32)
    there, back, out, dx = (cuda.array(a) for a in (x, dy, x, x))
    running = {"running_mean": cuda.array(mean), "running_var": cuda.array(var)}
    kept = [None]

    def device_pass():
        _, kept[0] = F.batch_norm_forward(there, activation="relu", out=out, **running)
        F.batch_norm_backward(back, kept[0], out=dx)

    with cuda.new_stream():
        device_pass()
        F.batch_norm_forward(x, activation="relu", running_mean=mean, running_var=var)
        replay = cuda.capture(device_pass)
        for step in (replay, replay, device_pass, replay, replay):
            x += x
            there[...] = cuda.array(x)
            step()
            y, saved = F.batch_norm_forward(x, activation="relu", running_mean=mean, running_var=var)
            found = [bits(cuda.host(a)) for a in (out, dx, *running.values())]
            assert found == [bits(a) for a in (y, F.batch_norm_backward(dy, saved).dx, mean, var)]
