"""A step allocates no arrays and keeps none: apart from parameters, gradients and state, its memory grows
neither with their size nor with the number of steps."""

import gc
import sys
import weakref

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from layouts import FOREIGN, OnlyDLPack, spread
from optimizers_table import CASES, values
from subprocesses import output

linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

PEAK = """
import numpy as np, fastopt

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

def step(size):
    w, g = np.ones(size, np.float32), np.ones(size, np.float32)
    {gradient}
    opt = fastopt.Adam(w, {options})
    opt.m[0].fill(1), opt.v[0].fill(1)  # makes the pages resident
    opt.lr = 1e-3
    open("/proc/self/clear_refs", "w").write("5")  # resets the peak
    before = status("VmRSS")
    opt.step(g)
    opt.step(g)
    return status("VmHWM") - before

step(1 << 18)  # warm-up: loads code and allocates the threads' stacks
print(step(1 << 24))
"""

# KiB that two steps on 16 M elements (256 MiB in total) may take; one such array takes 65,536. The kernel
# counts each thread's resident pages in batches, so a few hundred KiB are not significant.
MAX_KIB = 1024


@linux
@pytest.mark.parametrize(
    ("options", "gradient"),
    [
        ("clip_norm=1.0", ""),
        ("clip_norm=1.0, clip_value=0.5, l1=0.1, l2=0.1, weight_decay=0.1, on_nonfinite='skip'", ""),
        ("clip_norm=1.0", "g = g[::-1]"),
    ],
    ids=["clip", "everything around", "a gradient that must be gathered"],
)
def test_step_on_16_million_elements_allocates_no_array(options, gradient):
    assert int(output(PEAK.format(options=options, gradient=gradient))) < MAX_KIB


LEAK = """
import os, gc, numpy as np, fastopt

class Foreign:
    def __init__(self, a): self.a = a
    def __dlpack__(self, **options): return self.a.__dlpack__(**options)

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

sizes = (64, 10, 500)
params = [np.ones(n, np.float32) for n in sizes]
opt = fastopt.Adam(params, clip_norm=1.0)
strided = [np.ones(2 * n, np.float32)[::2] for n in sizes]
foreign = [Foreign(np.ones(n, np.float32)) for n in sizes]
bad = [np.ones(64, np.float32), foreign[1], None]
names = {"a": np.ones(3), "b": np.ones(3)}
named = fastopt.AdamW(names)

def steps(n):
    for i in range(n):
        opt.lr = 1 / (i + 1)
        opt.step(strided if i % 2 else foreign)
        named.step({"a": np.ones(3), "b": np.ones(3)})
        try:
            opt.step(bad)
        except TypeError:
            pass

steps(1000)
before = resident()
steps(10_000)
print(resident() - before)
"""


@linux
def test_ten_thousand_steps_leak_nothing():
    # One leaked array object per step would be more than 1 MiB.
    assert int(output(LEAK)) < 512 << 10


def reference_counts(objects):
    gc.collect()
    return [sys.getrefcount(o) for o in objects]


class CapsuleCounter(OnlyDLPack):
    """An array whose live capsules are counted by the references that they hold to it."""

    def alive(self):
        gc.collect()
        return sys.getrefcount(self.base)


@pytest.mark.parametrize("rule", CASES)
def test_step_keeps_reference_counts_unchanged(rule):
    params = [values(20), FOREIGN["torch"](values(20)), CapsuleCounter(values(20))]
    grads = [spread(values(20), (2,)), FOREIGN["torch"](values(20)), CapsuleCounter(values(20))]
    opt = CASES[rule].make(params, clip_norm=1.0)
    everything = [*params, params[2].base, *grads, grads[2].base, grads]
    opt.step(grads)
    before = reference_counts(everything)
    for _ in range(10):
        opt.step(grads)
    assert reference_counts(everything) == before
    for bad in (None, values(3), values(20, np.float64), params[0]):
        for place in range(3):
            with pytest.raises((TypeError, ValueError)):
                opt.step([*grads[:place], bad, *grads[place + 1 :]])
    del bad
    assert reference_counts(everything) == before


def test_gradients_are_released_after_valid_and_rejected_steps():
    opt = fastopt.SGD([values(20), values(20)])
    grads = [CapsuleCounter(values(20)), CapsuleCounter(values(20))]
    free = [g.alive() for g in grads]
    opt.step(grads)
    assert [g.alive() for g in grads] == free
    with pytest.raises(TypeError):
        opt.step([grads[0], None])
    assert [g.alive() for g in grads] == free


def test_deleting_an_optimizer_releases_its_params():
    param = values(20)
    before = reference_counts([param])
    opt = fastopt.Adam([{"params": [param], "lr": 0.1}])
    opt.step([np.ones(20, np.float32)])
    del opt
    assert reference_counts([param]) == before


class Owner(np.ndarray):
    """An array that may have attributes, and so hold references to others."""


def cycle_through_optimizer(form):
    param = np.ones(20).view(Owner)
    param.holds = fastopt.Adam(form(param))
    param.holds.step(form(np.ones(20)))
    return param


def cycle_through_saved_forward():
    x = values((4, 3)).view(Owner)
    _, x.holds = F.batch_norm_forward(x)
    return x


def cycle_through_torch_parameter():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    param = torch.nn.Parameter(torch.ones(20))
    param.holds = fastopt.Adam({"w": param})
    param.holds.step({"w": torch.ones(20)})
    return param


CYCLES = {
    "an array": lambda: cycle_through_optimizer(lambda a: a),
    "a list": lambda: cycle_through_optimizer(lambda a: [a]),
    "a dict": lambda: cycle_through_optimizer(lambda a: {"w": a}),
    "a forward pass": cycle_through_saved_forward,
    "a torch parameter": cycle_through_torch_parameter,
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_reference_cycles_are_garbage_collected(cycle):
    array = CYCLES[cycle]()
    gone = weakref.ref(array)
    del array
    gc.collect()
    assert gone() is None
