"""Processes that must die with the one that started them, whatever they are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dreamer_async.envs import children

PARENT = """
import subprocess, sys, threading
from dreamer_async.envs import children

def start():
    words, pipe = [sys.executable, "-c", sys.argv[1]], subprocess.PIPE
    child = {start}
    child.stdout.readline()
    print(child.pid, flush=True)

thread = threading.Thread(target=start)
thread.start()
thread.join()
sys.stdin.read()
"""
BUSY = {
    "asleep": "import time; print('up', flush=True); time.sleep(600)",
    "in C with the GIL": "import ctypes; print('up', flush=True); ctypes.PyDLL(None).sleep(600)",
    "deaf": (
        "import signal, time\n"
        "for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(600)"
    ),
    "stopped": "import os; print('up', flush=True); os.kill(os.getpid(), 19)",
}
START = "children.start(words, stdout=pipe)"
CONTROL = "subprocess.Popen(words, stdout=pipe)"
FROM_A_THREAD = "subprocess.Popen(children.bound(words), stdout=pipe)"


@contextmanager
def family(start: str, code: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A parent that has started a child in a thread that has ended since, and the child's pid."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(start=start), code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        yield parent, pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
        parent.communicate()


@pytest.mark.faults
@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("start", [START, CONTROL], ids=["bound", "control"])
def test_a_child_dies_with_the_process_that_started_it(start: str, busy: str) -> None:
    with family(start, BUSY[busy]) as (parent, pid):
        parent.kill()
        parent.wait()
        # Once the child is somebody else's, the kernel has sent the signal that it asked for.
        wait_until(lambda: parent_of(pid) != parent.pid)
        if start == CONTROL:
            assert parent_of(pid) is not None
        else:
            wait_until(lambda: parent_of(pid) is None)


@pytest.mark.faults
@pytest.mark.parametrize("start", [START, FROM_A_THREAD], ids=["real", "control"])
def test_a_child_outlives_the_thread_that_asked_for_it(start: str) -> None:
    """The control forks in that thread, whose end is the parent's for Linux."""
    with family(start, BUSY["asleep"]) as (_, pid):
        if start == START:
            time.sleep(0.3)
            assert parent_of(pid) is not None
        else:
            wait_until(lambda: parent_of(pid) is None)


def test_a_child_whose_parent_is_gone_before_it_begins_never_runs() -> None:
    words = children.bound([sys.executable, "-c", "print('ran')"])
    assert subprocess.run(words, capture_output=True, text=True).stdout == "ran\n"
    other = [str(os.getppid()) if word == str(os.getpid()) else word for word in words]
    assert subprocess.run(other, capture_output=True, text=True).stdout == ""


def test_what_a_library_starts_by_its_path_is_bound() -> None:
    program = children.stand_in(sys.executable)
    assert program == children.stand_in(sys.executable) != sys.executable
    words = [program, "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "['a b', '$HOME']\n"
    elsewhere = [sys.executable, "-c", f"import subprocess; subprocess.run({words})"]
    assert subprocess.run(elsewhere, capture_output=True, text=True).stdout == "", "other parent"


def test_a_killed_process_leaves_no_game_of_doom_behind(tmp_path: Path) -> None:
    play = (
        "import time; from dreamer_async import envs; "
        "env = envs.make('vizdoom', 'basic', num_envs=2, seed=0); env.start(); env.recv(); "
        "print('playing', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", play]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as player:
        assert player.stdout is not None and player.stdout.readline() == "playing\n"
        games = Path(f"/proc/{player.pid}/task").glob("*/children")
        pids = [int(pid) for file in games for pid in file.read_text().split()]
        assert len(pids) == 2
        commands = [w for p in pids for w in Path(f"/proc/{p}/cmdline").read_text().split("\0")]
        player.kill()
    wait_until(lambda: all(parent_of(pid) is None for pid in pids))
    for left in Path("/dev/shm").glob("ViZDoom*"):  # which nobody takes away
        if any(word and left.name.endswith(word) for word in commands):
            left.unlink()


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if it is dead."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
