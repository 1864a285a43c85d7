"""Threads do not change results, and two threads cannot step one optimizer at a time. Environment variables set
the number of threads and the instruction set, and an unavailable instruction set is an error."""

import contextlib
import copy
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

import fastopt
from fastopt import _core
from optimizers_table import CASES, all_bits, state_bits, values
from subprocesses import output, run


@pytest.fixture
def parallel():
    """Run every step in a parallel region of three threads, even a small one."""
    _core.set_parallel_cutoff(0)
    fastopt.set_num_threads(3)
    yield
    _core.set_parallel_cutoff(_core.PARALLEL_CUTOFF)
    fastopt.set_num_threads(0)


# ---- Python's threads ----


def trained(job):
    """Return parameters and state after thirty steps; each job has its own rule, sizes and numbers."""
    case = list(CASES.values())[job]
    params = [values(n, seed=job) for n in (40_000, 100 * job, 3)]
    opt = case.make(params, clip_norm=1.0, lr=0.01 * job)
    for _ in range(30):
        opt.step([p.copy() for p in params])
    return all_bits(params), state_bits(opt)


@pytest.mark.usefixtures("parallel")
def test_eight_threads_give_the_same_bits_as_one():
    jobs = range(1, 9)
    alone = [trained(job) for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(trained, jobs)) == alone


def test_step_from_a_second_thread_raises_and_the_first_one_completes():
    """The second thread gets an error, and the steps of the first one are complete."""
    size = 4_000_000
    params, twin = np.ones(size, np.float32), np.ones(size, np.float32)
    grads = np.ones(size, np.float32)
    opt = fastopt.Adam(params)
    messages, steps, done = [], 0, threading.Event()

    def meddle():
        while not done.is_set():
            opt.lr = opt.lr  # has to be passed on, too
            try:
                opt.step(grads)
                done.wait(0.001)
            except RuntimeError as e:
                messages.append(str(e))

    other = threading.Thread(target=meddle)
    other.start()
    deadline = time.monotonic() + 20
    while not (messages and steps > 5) and time.monotonic() < deadline:
        try:
            opt.step(grads)
            steps += 1
        except RuntimeError as e:
            messages.append(str(e))
    done.set()
    other.join()
    assert set(messages) == {"this optimizer is being stepped by another thread"}
    alone = fastopt.Adam(twin)
    for _ in range(opt.step_count):
        alone.step(grads)
    assert np.array_equal(params, twin)
    assert state_bits(opt) == state_bits(alone)


def test_lr_set_while_hyperparameters_are_passed_on_is_not_lost():
    """Simulate another thread that sets lr right after the values have been read."""
    w = np.zeros(3)
    opt = fastopt.SGD(w, lr=1.0)

    class Interrupted:
        def __init__(self, stepper):
            self.stepper = stepper

        def __getattr__(self, name):
            return getattr(self.stepper, name)

        def set_list_hyper(self, values):
            self.stepper.set_list_hyper(values)
            opt.lr = 0.5

    vars(opt)["_stepper"] = Interrupted(opt._stepper)
    opt.step(np.ones(3))
    opt.step(np.ones(3))
    assert w.tolist() == [-1.5] * 3


def test_step_from_within_a_step_raises():
    opt = fastopt.SGD(values(10))

    class StepsAgain:
        def __dlpack__(self, **_):
            opt.step(values(10))

    with pytest.raises(TypeError, match=r"^grad cannot be read .*: this optimizer is being stepped"):
        opt.step(StepsAgain())
    assert opt.step_count == 0


# ---- forks ----


@pytest.mark.usefixtures("parallel")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
# JAX warns of forks if another test has imported it.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_forked_child_can_step():
    """OpenMP's threads do not survive a fork, and waiting for them would never end."""
    trained(8)
    expected = trained(8)
    child = os.fork()
    if child == 0:
        os._exit(0 if fastopt.get_num_threads() == 1 and trained(8) == expected else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    assert fastopt.get_num_threads() == 3
    assert trained(8) == expected


class Waiting:
    """A gradient that blocks when it is read, in the middle of a step."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __dlpack_device__(self):
        return np.ones(10).__dlpack_device__()

    def __dlpack__(self, **options):
        self.reached.set()
        self.go_on.wait(30)
        return np.ones(10).__dlpack__(**options)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_child_forked_during_a_step_can_load_a_state():
    opt = fastopt.Adam(np.ones(10))
    saved, grad = opt.state_dict(), Waiting()
    thread = threading.Thread(target=opt.step, args=(grad,))
    thread.start()
    grad.reached.wait(30)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            for refused in (lambda: opt.step(np.ones(10)), opt.state_dict, lambda: copy.deepcopy(opt)):
                with pytest.raises(RuntimeError, match=r"^this process was forked"):
                    refused()
            opt.load_state_dict(saved)
            opt.step(np.ones(10))
            os._exit(10 + opt.step_count)
        os._exit(1)
    grad.go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    opt.step(np.ones(10))
    assert opt.step_count == 2


# ---- number of threads ----

THREADS = "import fastopt; print(fastopt.get_num_threads())"
BUSY = """
import os, numpy as np, fastopt
from fastopt import _core
_core.set_parallel_cutoff(0)
fastopt.SGD(w := np.ones(1000)).step(np.ones(1000))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("n", [1, 2, 5])
def test_omp_num_threads_is_respected(n):
    assert output(THREADS, OMP_NUM_THREADS=str(n)) == str(n)


@pytest.mark.skipif(sys.platform != "linux", reason="the threads are counted in /proc")
@pytest.mark.parametrize("n", [1, 4])
def test_process_has_the_requested_number_of_threads(n):
    # OPENBLAS_NUM_THREADS keeps NumPy's linear algebra from starting threads of its own.
    assert output(BUSY, OMP_NUM_THREADS=str(n), OPENBLAS_NUM_THREADS="1") == str(n)


def test_threadpoolctl_is_respected():
    before = fastopt.get_num_threads()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fastopt.get_num_threads() == 1
    assert fastopt.get_num_threads() == before


def test_set_num_threads_takes_precedence_until_reset_to_0():
    before = fastopt.get_num_threads()
    fastopt.set_num_threads(7)
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fastopt.get_num_threads() == 7
    fastopt.set_num_threads(0)
    assert fastopt.get_num_threads() == before


def test_omp_num_threads_is_limited_to_1024():
    """Without a limit, OpenMP would run out of stack or threads and abort the process."""
    code = """if True:
        import numpy as np, fastopt
        print(fastopt.get_num_threads())
        fastopt.set_num_threads(1)
        fastopt.SGD(np.ones(8)).step(np.ones(8))
    """
    assert output(code, OMP_NUM_THREADS="99999") == "1024"
    assert output(code, OMP_NUM_THREADS="3") == "3"


@pytest.mark.parametrize(
    ("n", "kind", "message"),
    [
        (-1, ValueError, r"n must lie in \[0, 1024\], got -1"),
        (1025, ValueError, r"n must lie in \[0, 1024\], got 1025"),
        (10**30, ValueError, r"n must lie in \[0, 1024\], got 1000"),
        ("2", TypeError, "n must be an integer, got '2'"),
        (1.5, TypeError, "n must be an integer, got 1.5"),
        (None, TypeError, "n must be an integer, got None"),
    ],
)
def test_set_num_threads_with_invalid_number_raises(n, kind, message):
    before = fastopt.get_num_threads()
    with pytest.raises(kind, match=f"^{message}"):
        fastopt.set_num_threads(n)
    assert fastopt.get_num_threads() == before


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer's frames are larger")
def test_threads_need_at_most_128_kib_of_stack():
    """128 KiB is the default of musl."""
    code = """if True:
        import numpy as np, fastopt
        from fastopt import _core, functional as F
        _core.set_parallel_cutoff(0)
        fastopt.set_num_threads(3)
        for shape in ((64, 9, 7, 7), (64, 9, 20, 20), (500, 33), (500, 3)):
            for dtype in (np.float16, np.float32, np.float64):
                x = np.random.default_rng(0).normal(size=shape).astype(dtype)
                y, saved = F.batch_norm_forward(x, activation="relu")
                F.batch_norm_backward(y, saved)
                y, saved = F.dropout_forward(x, 0.5, seed=1)
                fastopt.Adam(x, clip_norm=1.0).step(np.asfortranarray(y))
        print("done")
    """
    assert output(code, OMP_STACKSIZE="128k") == "done"


# ---- instruction set ----

ISA = "from fastopt import _core; print(_core.isa())"


@pytest.mark.parametrize("name", _core.isas_supported())
def test_requested_instruction_set_is_used(name):
    assert output(ISA, FASTOPT_ISA=name) == name


def test_default_instruction_set_is_the_best_supported():
    assert output(ISA) == output(ISA, FASTOPT_ISA="") == _core.isas_supported()[0]


UNSUPPORTED = set(_core.isas_built()) - set(_core.isas_supported())


@pytest.mark.parametrize("name", ["v9", "avx2", *UNSUPPORTED])
def test_unavailable_instruction_set_raises_and_lists_the_available_ones(name):
    done = run("import fastopt", FASTOPT_ISA=name)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message == (
        f"ImportError: FASTOPT_ISA: instruction set '{name}' is not available; "
        f"built: {', '.join(_core.isas_built())}; "
        f"supported by this CPU: {', '.join(_core.isas_supported())}"
    )
