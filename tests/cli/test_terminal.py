"""The real thing on a pseudo-terminal: train, pause, save, detach, attach again, stop."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyte
import pytest
import torch
from tiny_run import AS_OPTIONS, kill_trainers, make_run, newest

from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import RunDir

COLUMNS, ROWS = 100, 30
PATIENCE_S = 90.0
ATTACHES = 100


class Person:
    """Somebody at a terminal who types a command, presses keys and reads the screen."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        """All that was ever written to the terminal."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dreamer_async", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
            start_new_session=True,
        )
        os.close(slave)

    def look(self, seconds: float = 0.1) -> str:
        """What stands on the screen after a while."""
        self._read(seconds)
        return "\n".join(self.screen.display)

    def _read(self, seconds: float) -> int:
        """Take in what comes within a while; the number of bytes."""
        data = b""
        if select.select([self._master], [], [], seconds)[0]:
            with suppress(OSError):  # the other side is closed when the program has ended
                data = os.read(self._master, 1 << 16)
        self._stream.feed(data)
        self.output += data
        return len(data)

    def see(self, *texts: str) -> str:
        """Wait until all the texts are on the screen at once."""
        return self._wait(lambda screen: all(text in screen for text in texts), " and ".join(texts))

    def see_gone(self, text: str) -> None:
        """Wait until a text is not on the screen any more."""
        self._wait(lambda screen: text not in screen, f"{text} to go away")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def exit_code(self) -> int:
        self._wait(lambda _: self._process.poll() is not None, "the end of the program")
        while self._read(0.0):
            pass
        os.close(self._master)
        return self._process.returncode

    def _wait(self, condition: Callable[[str], bool], what: str) -> str:
        end = time.monotonic() + PATIENCE_S
        while not condition(screen := self.look()):
            assert time.monotonic() < end, f"waited for {what}; the screen shows\n{screen}"
        return screen


def updates(run: RunDir) -> int:
    records, _ = events.read_events(run.events_path)
    return max((r.event.update for r in records if isinstance(r.event, events.Metrics)), default=0)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the runs are; whatever still trains in it at the end of the test is killed."""
    yield tmp_path
    kill_trainers(tmp_path)


def test_a_run_from_the_first_key_to_the_last(folder: Path) -> None:
    options = ["--size", "tiny", "--steps", "1000000", "--runs-dir", str(folder)]
    person = Person(folder, "train", "toy", "--task", "catch", *options, *AS_OPTIONS)
    person.see("toy/catch", "TRAINING", "returns", "return scale S", "pipeline")
    (run,) = [RunDir(path) for path in folder.iterdir() if path.is_dir()]

    person.press("p")
    person.see("PAUSED")
    paused_at = updates(run)
    time.sleep(0.5)
    assert updates(run) - paused_at <= 1, "at most the update that was running"
    person.press("p")
    person.see("TRAINING")

    person.press("c")
    person.see("saved")
    wait_until(lambda: checkpoint.newest(run.checkpoints)[0] is not None, "a checkpoint")

    person.press("3")
    person.see("env stepping", "replay sample", "update")
    person.press("?")
    person.see("keys", "To the shell", "esc closes")
    person.press("\x1b")
    person.see_gone("esc closes")
    person.press("q")
    assert person.exit_code() == 0
    assert b"detached from" in person.output
    detached_at = updates(run)
    wait_until(lambda: updates(run) > detached_at + 2, "the trainer to go on by itself")

    person = Person(folder, "watch", "last", "--runs-dir", str(folder))
    person.see("toy/catch", "TRAINING")
    person.press("Q")
    person.see("stop this run?", "Stop and save")
    person.press("y")
    assert person.exit_code() == 0
    wait_until(lambda: isinstance(last_event(run), events.RunFinished), "the end of the run")
    finished = last_event(run)
    assert isinstance(finished, events.RunFinished) and finished.reason == "stopped"
    newest, skipped = checkpoint.newest(run.checkpoints)
    assert newest is not None and not skipped
    assert newest.manifest["updates"] == finished.updates


def last_event(run: RunDir) -> events.Event:
    return events.read_events(run.events_path)[0][-1].event


@pytest.mark.slow
def test_a_hundred_attaches_change_nothing_in_the_trainer(folder: Path) -> None:
    """A lockstep run that is attached to and left again has the same tensors, to the bit."""
    tensors = []
    for name, attaches in (("alone", 0), ("watched", ATTACHES)):
        run = make_run(folder / name, "train.steps=8000", "train.sync=true")
        words = [sys.executable, "-m", "dreamer_async", "trainer", str(run.path)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as trainer:
            wait_until(lambda run=run: run.owner() is not None, "the trainer")
            beside = [_attach(folder, run) and trainer.poll() is None for _ in range(attaches)]
        assert trainer.returncode == 0
        assert sum(beside) >= attaches // 10, "too few were beside a trainer to mean anything"
        tensors.append(newest(run).tensors)
    alone, watched = tensors
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[key], watched[key]) for key in alone)


def _attach(folder: Path, run: RunDir) -> bool:
    """Attach, see the run, detach."""
    person = Person(folder, "watch", str(run.path))
    person.see("toy/catch", "returns")
    person.press("q")
    return person.exit_code() == 0
