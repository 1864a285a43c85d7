"""A step makes no array and keeps none: beyond parameters, gradients and state its memory does not grow
with their size, nor with the number of steps."""

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

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="/proc tells how much memory there was at most"
)

PEAK = """
import numpy as np, fastopt

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

def step(size):
    w, g = np.ones(size, np.float32), np.ones(size, np.float32)
    {gradient}
    opt = fastopt.Adam(w, {options})
    opt.m[0].fill(1), opt.v[0].fill(1)  # in memory from here on
    opt.lr = 1e-3
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    opt.step(g)
    opt.step(g)
    return status("VmHWM") - before

step(1 << 18)  # code and threads' stacks
print(step(1 << 24))
"""

# KiB that two steps on 16 M elements, 256 MiB in all, may take; an array of theirs has 65,536. The
# kernel counts resident pages for each thread in batches, so that a few hundred KiB mean nothing.
MOST = 1024


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
def test_a_step_on_16_million_elements_makes_no_array(options, gradient):
    assert int(output(PEAK.format(options=options, gradient=gradient))) < MOST


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
    # A single array object leaked in each step would be more than 1 MiB.
    assert int(output(LEAK)) < 512 << 10


def counts(objects):
    gc.collect()
    return [sys.getrefcount(o) for o in objects]


class Watched(OnlyDLPack):
    """Counts its capsules that are alive, by the references they hold to the array."""

    def alive(self):
        gc.collect()
        return sys.getrefcount(self.base)


@pytest.mark.parametrize("rule", CASES)
def test_a_step_gives_every_reference_back(rule):
    params = [values(20), FOREIGN["torch"](values(20)), Watched(values(20))]
    grads = [spread(values(20), (2,)), FOREIGN["torch"](values(20)), Watched(values(20))]
    opt = CASES[rule].make(params, clip_norm=1.0)
    everything = [*params, params[2].base, *grads, grads[2].base, grads]
    opt.step(grads)
    before = counts(everything)
    for _ in range(10):
        opt.step(grads)
    assert counts(everything) == before
    for bad in (None, values(3), values(20, np.float64), params[0]):
        for place in range(3):
            with pytest.raises((TypeError, ValueError)):
                opt.step([*grads[:place], bad, *grads[place + 1 :]])
    del bad
    assert counts(everything) == before


def test_gradients_are_free_after_the_step_even_a_refused_one():
    opt = fastopt.SGD([values(20), values(20)])
    grads = [Watched(values(20)), Watched(values(20))]
    free = [g.alive() for g in grads]
    opt.step(grads)
    assert [g.alive() for g in grads] == free
    with pytest.raises(TypeError):
        opt.step([grads[0], None])
    assert [g.alive() for g in grads] == free


def test_an_optimizer_and_its_arrays_go_when_they_are_let_go():
    param = values(20)
    before = counts([param])
    opt = fastopt.Adam([{"params": [param], "lr": 0.1}])
    opt.step([np.ones(20, np.float32)])
    del opt
    assert counts([param]) == before


class Owner(np.ndarray):
    """An array that may hold on to others."""


def cycle_of_an_optimizer(form):
    param = np.ones(20).view(Owner)
    param.holds = fastopt.Adam(form(param))
    param.holds.step(form(np.ones(20)))
    return param


def cycle_of_a_forward_pass():
    x = values((4, 3)).view(Owner)
    _, x.holds = F.batch_norm_forward(x)
    return x


def cycle_of_a_parameter():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    param = torch.nn.Parameter(torch.ones(20))
    param.holds = fastopt.Adam({"w": param})
    param.holds.step({"w": torch.ones(20)})
    return param


CYCLES = {
    "an array": lambda: cycle_of_an_optimizer(lambda a: a),
    "a list": lambda: cycle_of_an_optimizer(lambda a: [a]),
    "a dict": lambda: cycle_of_an_optimizer(lambda a: {"w": a}),
    "a forward pass": cycle_of_a_forward_pass,
    "a parameter of torch's": cycle_of_a_parameter,
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_what_holds_what_holds_it_is_collected(cycle):
    array = CYCLES[cycle]()
    gone = weakref.ref(array)
    del array
    gc.collect()
    assert gone() is None
