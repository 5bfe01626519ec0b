"""Signals to the launcher of ranks: the first is passed on, the second ends all of them at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import TINY, make_run, read

from dreamer_async.machine.interpreter import command, environment
from dreamer_async.parallel import launch
from dreamer_async.store.events import (
    EventWriter,
    PhaseChanged,
    Resumed,
    RunFinished,
    next_generation,
)
from dreamer_async.store.run_dir import list_runs

ROOT = Path(__file__).parents[2]
LAUNCHER = """
import os, signal, subprocess, sys, time
from dreamer_async.parallel.launch import Insistence

Insistence(lambda number: None).listen()
silent = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
rank = subprocess.Popen(["sleep", "99"], start_new_session=True, **silent)
other = subprocess.Popen(["sleep", "99"], **silent)
print(rank.pid, other.pid, flush=True)
first, pause, second = sys.argv[1:]
os.kill(os.getpid(), int(first))
time.sleep(float(pause))
os.kill(os.getpid(), int(second))
other.kill()
print("goes on", flush=True)
rank.kill()
"""


@pytest.mark.parametrize(
    ("first", "pause", "second", "code"),
    [
        (signal.SIGINT, 0.6, signal.SIGINT, 130),
        (signal.SIGTERM, 0.6, signal.SIGTERM, 143),
        (signal.SIGINT, 0.0, signal.SIGTERM, 143),
        (signal.SIGTERM, 0.0, signal.SIGTERM, 0),
    ],
    ids=["ctrl+c twice", "SIGTERM twice", "another one", "control: an echo"],
)
def test_a_second_signal_ends_the_launcher_and_its_ranks(
    first: int, pause: float, second: int, code: int
) -> None:
    words = [sys.executable, "-c", LAUNCHER, str(int(first)), str(pause), str(int(second))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    rank, other = map(int, done.stdout.split()[:2])
    assert done.returncode == code, done.stderr
    assert ("goes on" in done.stdout) == (code == 0)
    wait_for(lambda: not alive(rank))
    if code:  # else the launcher itself has ended both
        assert alive(other), "what is no rank is none of its business"
        os.kill(other, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def wait_for(true: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- a real one --------------------------------------------------------------------------------


def ranks_of(launcher: subprocess.Popen[bytes]) -> list[int]:
    """Grandchildren: the launcher itself is a child of setsid."""
    return [rank for pid in children(launcher.pid) for rank in children(pid)]


def children(pid: int) -> list[int]:
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in paths for word in path.read_text().split()]


def trains(root: Path, times: int = 1) -> bool:
    """Whether environments step, for so many times by now."""
    runs = list_runs(root)
    if not runs or not runs[0].events_path.exists():
        return False
    phases = [event.phase for event in read(runs[0]) if isinstance(event, PhaseChanged)]
    return phases.count("training") >= times


@pytest.mark.slow
def test_ranks_start_again_after_a_death_and_end_at_once_after_ctrl_c_twice(tmp_path: Path) -> None:
    """One rank is suspended, so that the other one waits for it in the last save."""
    words = command(
        *("dreamer_async", "train", "toy", "--task", "seek", "--devices", "2", "--plain"),
        *("--steps", "1000000", "--max-restarts", "1", "-s", "train.checkpoint_seconds=1"),
        *("--runs-dir", tmp_path, *(f"-s{text}" for text in TINY)),
    )
    parent, terminal = pty.openpty()
    launcher = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *words],
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    os.set_blocking(parent, False)
    ranks: list[int] = []
    try:
        wait_for(lambda: drained(parent) and trains(tmp_path), 400.0)
        [run] = list_runs(tmp_path)
        wait_for(lambda: drained(parent) and any(run.checkpoints.glob("step-*")))
        os.kill(ranks_of(launcher)[1], signal.SIGKILL)
        wait_for(lambda: drained(parent) and trains(tmp_path, 2), 400.0)
        [resumed] = [event for event in read(run) if isinstance(event, Resumed)]
        assert resumed.checkpoint and resumed.env_steps > 0, "it went on by itself"
        ranks = ranks_of(launcher)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGSTOP)
        os.write(parent, b"\x03")
        time.sleep(1.0)
        assert launcher.poll() is None, "it waits for its ranks"
        os.write(parent, b"\x03")
        wait_for(lambda: drained(parent) and launcher.poll() is not None)
        assert launcher.returncode == 130
        wait_for(lambda: not any(map(alive, ranks)))
        assert run.owner() is None
    finally:
        for pid in (*ranks, launcher.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        launcher.wait()
        os.close(parent)


def drained(descriptor: int) -> bool:
    """Read what a terminal shows, so that nobody waits to print; always true."""
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        return True
    return True


def test_what_an_earlier_trainer_told_is_no_exit_code(tmp_path: Path) -> None:
    """A resume that fails before it has restored the run writes nothing."""
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(RunFinished("stopped", 100, 10, 0, "signal SIGTERM"))
    own = next_generation(run.events_path)
    assert launch._of(run, own, {0: 65, 1: 65}) == 65
    with EventWriter(run.events_path, own) as writer:
        writer.emit(RunFinished("failed", 100, 10, 74, "the disk is full"))
    assert launch._of(run, own, {0: 1, 1: 1}) == 74
