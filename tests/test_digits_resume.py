"""A run on the digits that is interrupted and resumed gives the same bits as an uninterrupted one: with real
signals at every kind of place, and within a process for every optimizer. A checkpoint that cannot be resumed
is rejected and left unchanged."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastopt

for package in ("sklearn", "matplotlib", "rich"):
    pytest.importorskip(package, reason=f"the examples need {package}: pip install '.[demo]'")

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from settings import OPTIMIZERS, Settings  # noqa: E402
from training import Training, load_data  # noqa: E402

# Everything that has state, with little computation: 3 epochs of 63 steps.
SMALL = {
    **{"layers": 2, "hidden": 16, "epochs": 3, "augment": 1, "batch_norm": True, "dropout": 0.2},
    **{"schedule": "plateau", "early_stopping": 2, "ema": 0.9, "clip_norm": 1.0, "l1": 1e-4},
}
STEPS = 63


def command(folder, optimizer="Nesterov"):
    options = [
        "--optimizer",
        optimizer,
        "--checkpoint",
        folder / "run.npz",
        "--picture",
        folder / "run.png",
    ]
    for name, value in SMALL.items():
        options += ["--" + name.replace("_", "-"), *([] if value is True else [value])]
    return [str(option) for option in options]


def process(program, folder, **how):
    """Start the command, directly or within a Python program that calls ``main()``. The program handles
    Ctrl-C even if the tests run in the background of a shell, where SIGINT is ignored."""
    head = [EXAMPLES / "digits.py"]
    if program:
        start = (
            f"import os, signal, sys; sys.path.insert(0, {str(EXAMPLES)!r}); import digits, training\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)"
        )
        head = ["-c", f"{start}\n{program}\ndigits.main(sys.argv[1:])"]
    return subprocess.Popen(
        [sys.executable, *head, *command(folder)],
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def run(program, folder):
    with process(program, folder) as child:
        out, err = child.communicate(timeout=120)
    return child.returncode, out, err


AT_STEP = """
step, count = training.Training.step, 0
def stop(*args):
    global count
    count += 1
    if count == {step}:
        for _ in range({times}):
            signal.raise_signal(signal.{signal})  # to this thread: two to the process may arrive as one
    step(*args)
training.Training.step = stop
"""

IN_A_WRITE = """
fsync, count = os.fsync, 0
def stop(descriptor):
    global count
    count += 1
    if count == {sync}:
        signal.raise_signal(signal.{signal})
    fsync(descriptor)
os.fsync = stop
"""


def at_step(step, signal="SIGINT", times=1):
    return AT_STEP.format(step=step, signal=signal, times=times)


def in_a_write(number, signal="SIGINT"):
    """Interrupt while the file is flushed. The first write comes before the first step, the others after each
    epoch. Each flushes the file, then the folder."""
    return IN_A_WRITE.format(sync=2 * number - 1, signal=signal)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return the final checkpoint of an uninterrupted run, and the table that it prints."""
    folder = tmp_path_factory.mktemp("straight")
    code, out, err = run("", folder)
    assert (code, err) == (0, "")
    return (folder / "run.npz").read_bytes(), result(out)


def result(out):
    """Return the lines of the table."""
    return [line for line in out.splitlines() if "Nesterov" in line or "epoch" in line.split("(")[0]][
        -2:
    ]


def test_run_stopped_repeatedly_ends_with_the_same_bits(straight, tmp_path):
    """The run is stopped at its first step, in the middle of an epoch, at the last step of an epoch, at the
    first step of the next, and while a checkpoint is written."""
    stops = {
        at_step(1): 1,
        at_step(39): 40,
        at_step(23): 63,
        at_step(1, "SIGTERM"): 64,
        in_a_write(2): 127,
    }
    for program, steps in stops.items():
        code, out, err = run(program, tmp_path)
        assert (code, err) == (143 if "SIGTERM" in program else 130, "")
        assert f"Stopped after {(steps - 1) // STEPS} epochs and" in out
        state = fastopt.checkpoint.load(tmp_path / "run.npz")
        assert state["optimizer"]["step_count"] == steps
    code, out, err = run("", tmp_path)
    assert (code, err) == (0, "")
    assert "Resuming from" in out
    assert (tmp_path / "run.npz").read_bytes() == straight[0]
    assert result(out) == straight[1]


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (in_a_write(3, "SIGKILL"), -signal.SIGKILL),
        (at_step(100, times=2), -signal.SIGINT),  # the second one ends the run at once
    ],
)
def test_run_that_could_not_write_continues_from_the_last_checkpoint(program, code, straight, tmp_path):
    assert run(program, tmp_path)[0] == code
    assert fastopt.checkpoint.load(tmp_path / "run.npz")["optimizer"]["step_count"] == STEPS
    assert run("", tmp_path)[0] == 0
    assert (tmp_path / "run.npz").read_bytes() == straight[0]


def test_run_stopped_at_a_random_time_ends_with_the_same_bits(straight, tmp_path):
    delay = random.uniform(0, 0.2)
    with process("", tmp_path) as child:
        while not (tmp_path / "run.npz").exists():
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=120)
    if child.returncode == 130:
        assert err == "", delay
    else:  # the last step had been taken, after which Python handles Ctrl-C
        assert child.returncode in (0, -signal.SIGINT), (delay, err)
    assert run("", tmp_path)[0] == 0
    assert (tmp_path / "run.npz").read_bytes() == straight[0], delay


# ---- within a process ----


def trained(data, settings, steps=None):
    """Return a run that was trained to the end, or for ``steps`` steps."""
    training = Training(np, data, settings)
    training.run(lambda: training.opt.step_count == steps)
    return training


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes_with_the_same_bits(name, tmp_path):
    settings = Settings(optimizer=name, **SMALL)
    data, file = load_data(np, settings), tmp_path / "run.npz"

    def state(training):
        fastopt.checkpoint.save(file, training.state_dict())
        return file.read_bytes()

    straight = state(trained(data, settings))
    for steps in (1, 50, STEPS, STEPS + 1, 2 * STEPS):
        state(trained(data, settings, steps))
        resumed = Training(np, data, settings)
        resumed.load_state_dict(fastopt.checkpoint.load(file))
        resumed.run()
        assert state(resumed) == straight, steps


# At this learning rate the validation loss does not fall: the first epoch is the best, and the plateau
# schedule acts.
STALLED = {**SMALL, "lr": 1.0, "epochs": 8, "early_stopping": 6}
PARTS = {
    **dict.fromkeys(("optimizer", "batches", "generator", "average", "arrays", "total"), SMALL),
    **dict.fromkeys(("plateau", "early stopping"), STALLED),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_checkpoint_is_needed(part):
    settings = Settings(optimizer="Nesterov", **PARTS[part])
    data = load_data(np, settings)
    straight, fresh = trained(data, settings), Training(np, data, settings)
    state = trained(data, settings, (settings.epochs - 2) * STEPS + 5).state_dict()
    fresh.load_state_dict({**state, part: fresh.state_dict()[part]})
    fresh.run()

    def bits(training):
        arrays = [array.tobytes() for array in training.arrays.values()]
        return arrays, training.history

    assert bits(fresh) != bits(straight)


def test_finished_run_is_not_continued():
    settings = Settings(optimizer="Adam", **SMALL)
    data = load_data(np, settings)
    ended, again = Training(np, data, settings), Training(np, data, settings)
    states = []
    ended.run(epoch_done=lambda: states.append(copy.deepcopy(ended.state_dict())))
    again.load_state_dict(states[-1])
    again.run(epoch_done=lambda: pytest.fail("it goes on"))
    assert all(
        (a == b).all() for a, b in zip(ended.arrays.values(), again.arrays.values(), strict=True)
    )


# ---- rejected checkpoints ----


def assert_rejected(folder, content, says, capsys, more=()):
    """Check that the command prints one sentence, exits with 2 and leaves the file unchanged."""
    import digits

    file = folder / "run.npz"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        digits.main([*command(folder), *more])
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert err.startswith(f"digits.py: cannot resume from {file}: ")
    assert says in err
    assert file.read_bytes() == content
    assert os.listdir(folder) == [file.name]


def saved(state, folder):
    fastopt.checkpoint.save(folder / "run.npz", state)
    return (folder / "run.npz").read_bytes()


def test_invalid_checkpoint_is_rejected_and_left_unchanged(straight, tmp_path, capsys):
    damaged = straight[0][:2000] + b"?" + straight[0][2001:]
    for content in (straight[0][:-1], straight[0][:5000], damaged, b"", b"not one"):
        assert_rejected(tmp_path, content, "is not a fastopt checkpoint, or is corrupted", capsys)
    for state in ([], {}, {"settings": 1}):
        assert_rejected(tmp_path, saved(state, tmp_path), "it is not a checkpoint of digits.py", capsys)


def test_checkpoint_of_other_options_is_rejected_and_left_unchanged(straight, tmp_path, capsys):
    says = "it was started with dropout 0.2, not 0.1; seed 0, not 3"
    assert_rejected(tmp_path, straight[0], says, capsys, ["--dropout", "0.1", "--seed", "3"])
    assert_rejected(
        tmp_path, straight[0], "optimizer Nesterov, not SGD", capsys, ["--optimizer", "SGD"]
    )


def test_checkpoint_without_a_part_is_rejected_and_left_unchanged(straight, tmp_path, capsys):
    (tmp_path / "run.npz").write_bytes(straight[0])
    whole = fastopt.checkpoint.load(tmp_path / "run.npz")
    for part in whole.keys() - {"settings"}:
        rest = {name: state for name, state in whole.items() if name != part}
        assert_rejected(tmp_path, saved(rest, tmp_path), f"it has no {part}", capsys)
    arrays = {name: array for name, array in whole["arrays"].items() if name != "w0"}
    assert_rejected(tmp_path, saved({**whole, "arrays": arrays}, tmp_path), "it has no w0", capsys)
    other = {**whole, "optimizer": 3}
    assert_rejected(tmp_path, saved(other, tmp_path), "state has type int, expected a dict", capsys)


def test_unwritable_checkpoint_is_reported_before_the_first_step(tmp_path, capsys, monkeypatch):
    import digits

    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(SystemExit) as ended:
        digits.main([*command(tmp_path), "--checkpoint", str(tmp_path / "nowhere" / "run.npz")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("digits.py: --checkpoint cannot be written: ")
