"""The dashboard as a process on a pseudo-terminal: signals, exit codes, a clean terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dreamer_async.store import exit_codes
from dreamer_async.store.events import RunFinished, encode_line
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.driver import LATE_SECONDS
from tests.tui.test_app import trainer

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parents[1] / "data" / "tui" / "catch.jsonl"
ALTERNATE_SCREEN = b"\x1b[?1049h"
NORMAL_SCREEN = b"\x1b[?1049l"
PATIENCE_S = 60.0
"""How long a busy machine may take for what takes a second."""


TUI = ("-m", "dreamer_async.tui")


class Terminal:
    """A dashboard on a pseudo-terminal of 80x24."""

    def __init__(
        self, run: RunDir, *options: str, words: Sequence[str] = TUI, **environment: str
    ) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, *words, str(run.path), *options],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm-256color"} | environment,
            start_new_session=True,
        )

    def read(self, seconds: float) -> None:
        """Collect what comes within a while."""
        if self.master >= 0 and select.select([self.master], [], [], seconds)[0]:
            with suppress(OSError):
                self.output += os.read(self.master, 1 << 16)

    def wait_for(self, text: bytes, seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, self.output[-2000:]
            assert self.process.poll() is None, self.output[-2000:]
            self.read(0.1)

    def wait_for_all(self, text: bytes, seconds: float = PATIENCE_S) -> None:
        """Wait for what a process says that need not be the first one."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, self.output[-2000:]
            self.read(0.1)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def exit_code(self, seconds: float = PATIENCE_S) -> int:
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end: {self.output[-2000:]!r}"
            self.read(0.05)
        seen = -1
        while seen < len(self.output):
            seen = len(self.output)
            self.read(0.05)
        return self.process.returncode

    def is_clean(self) -> bool:
        """Tell whether the terminal is as it was before."""
        after: Any = termios.tcgetattr(self.slave)
        return NORMAL_SCREEN in self.output and after == self.before

    def hang_up(self) -> None:
        """Take the terminal away, as a lost ssh connection does."""
        os.close(self.master)
        os.close(self.slave)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run whose trainer is this test."""
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    run.events_path.write_bytes(RECORDED.read_bytes())
    with trainer(run):
        yield run


def finish(run: RunDir) -> None:
    with open(run.events_path, "ab") as file:
        file.write(encode_line(RunFinished("stopped", 1, 1, 0), time.time(), 0.0, 0))


def terminal(
    run: RunDir, *options: str, words: Sequence[str] = TUI, **environment: str
) -> Terminal:
    result = Terminal(run, *options, words=words, **environment)
    try:
        result.wait_for(b"TRAINING")
    except BaseException:
        result.close()
        raise
    return result


def test_the_first_frame_has_the_numbers(run: RunDir) -> None:
    """Nobody sees a shell: titles come with what was read, row by row from the top."""
    screen = terminal(run)
    try:
        screen.wait_for(b"overview")
        marks = b"TRAINING", b"return scale S", b"pipeline", b"overview"
        places = [screen.output.index(mark) for mark in marks]
        assert places == sorted(places)
        assert b"waiting for" not in screen.output
    finally:
        screen.close()


@pytest.mark.parametrize(("locale", "plain"), [("C", True), ("C.UTF-8", False)])
def test_the_locale_says_which_characters_the_terminal_has(
    run: RunDir, locale: str, plain: bool
) -> None:
    screen = terminal(run, LC_ALL=locale)
    try:
        screen.wait_for(b"overview")
        assert screen.output.isascii() == plain
    finally:
        screen.close()


def test_a_key_detaches(run: RunDir) -> None:
    screen = terminal(run)
    try:
        assert ALTERNATE_SCREEN in screen.output
        screen.press(b"q")
        assert screen.exit_code() == 0
        assert screen.is_clean() and run.take_requests() == []
    finally:
        screen.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_detaches(run: RunDir, number: signal.Signals) -> None:
    screen = terminal(run)
    try:
        screen.process.send_signal(number)
        assert screen.exit_code() == 0
        assert screen.is_clean() and run.take_requests() == []
    finally:
        screen.close()


@pytest.mark.parametrize("told", [True, False])
def test_a_lost_terminal_detaches(run: RunDir, told: bool) -> None:
    screen = terminal(run, "--owner")
    try:
        screen.hang_up()
        if told:
            screen.process.send_signal(signal.SIGHUP)
        assert screen.exit_code() == 0
        assert run.take_requests() == []
    finally:
        screen.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whatever_comes_with_a_closed_terminal_only_detaches_the_owner(
    run: RunDir, number: signal.Signals
) -> None:
    screen = terminal(run, "--owner")
    try:
        screen.process.send_signal(number)
        assert screen.exit_code() == 0
        assert screen.is_clean() and run.take_requests() == []
    finally:
        screen.close()


BETWEEN = (
    "-c",
    "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-m', 'dreamer_async.tui', *sys.argv[1:]])",
)
"""Another process between the terminal and the dashboard, as the launcher is."""


@pytest.mark.faults
def test_a_dashboard_whose_launcher_is_killed_leaves_a_clean_terminal(run: RunDir) -> None:
    screen = terminal(run, "--owner", words=BETWEEN)
    try:
        screen.process.kill()
        assert screen.exit_code() == -signal.SIGKILL
        screen.wait_for_all(NORMAL_SCREEN)
        assert screen.is_clean() and run.take_requests() == []
    finally:
        screen.close()


BROKEN = r"""
import sys
from dreamer_async.tui import app
from dreamer_async.tui.__main__ import cli
def boom(self):
    raise ValueError("no such \x1b[31mcolour\nat all")
app.Dashboard.{} = boom
sys.exit(cli())
"""


@pytest.mark.faults
@pytest.mark.parametrize("where", ["begin", "_paint", "check_trainer", "read_piece"])
def test_an_exception_is_one_line_a_code_and_a_clean_terminal(run: RunDir, where: str) -> None:
    """Before there is a screen, in a timer, and in a worker."""
    screen = Terminal(run, "--owner", words=("-c", BROKEN.format(where)))
    try:
        assert screen.exit_code() == exit_codes.DASHBOARD == 76
        shown = screen.output
        line = b"error: the dashboard failed: ValueError: no such [31mcolour at all (<string>:6)"
        assert line in shown and shown.count(b"Traceback") == 0
        assert shown.partition(line)[2].count(b"\n") == 1, "nothing follows"
        assert termios.tcgetattr(screen.slave) == screen.before
        assert run.take_requests() == []
    finally:
        screen.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--page", "lossess"], "error: --page: there is no page 'lossess'; did you mean losses?"),
        (["--page", "zq"], "error: --page: there is no page 'zq'; there are overview, losses, "),
        (["--size", "3"], "error: --size: expected COLUMNSxROWS such as 120x40, got '3'"),
    ],
)
def test_wrong_words_are_one_line(run: RunDir, words: list[str], message: str) -> None:
    line = [sys.executable, *TUI, str(run.path), "--screenshot", os.devnull, *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == exit_codes.WRONG_INPUT
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_dashboard_is_not_drawn_into_a_file_of_errors(run: RunDir, tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    code = "import os, sys; os.dup2(os.open(sys.argv.pop(), os.O_WRONLY | os.O_CREAT), 2)\n"
    words = ("-c", code + "from dreamer_async.tui.__main__ import cli\nsys.exit(cli())")
    screen = Terminal(run, str(errors), words=words)
    try:
        screen.wait_for(b"TRAINING")
        screen.press(b"q")
        assert screen.exit_code() == 0 and screen.is_clean()
        assert errors.read_bytes() == b""
    finally:
        screen.close()


def test_errors_still_go_where_they_were_sent(run: RunDir, tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    code = "import os, sys; os.dup2(os.open(sys.argv.pop(), os.O_WRONLY | os.O_CREAT), 2)\n"
    screen = Terminal(run, str(errors), words=("-c", code + BROKEN.format("_paint")))
    try:
        assert screen.exit_code() == exit_codes.DASHBOARD
        assert errors.read_bytes().startswith(b"error: the dashboard failed")
    finally:
        screen.close()


SHELL = r"""
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
launcher = (
    "import subprocess, sys\n"
    "sys.exit(subprocess.call([sys.executable, '-m', 'dreamer_async.tui', *sys.argv[1:]]))"
)
job = subprocess.Popen([sys.executable, "-c", launcher, *sys.argv[1:]], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("SHELL stopped", os.WIFSTOPPED(status), flush=True)
sys.stdin.readline()
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
sys.exit(job.wait())
"""
"""What a shell does with a job that ctrl+z stops and fg continues."""


def test_ctrl_z_goes_to_the_shell_and_fg_comes_back(run: RunDir) -> None:
    screen = terminal(run, words=("-c", SHELL))
    try:
        screen.press(b"\x1a")
        screen.wait_for(b"SHELL stopped True")
        assert screen.is_clean() and run.take_requests() == []
        screen.output = b""
        screen.press(b"\n")
        screen.wait_for(ALTERNATE_SCREEN)
        screen.wait_for(b"TRAINING")
        screen.press(b"q")
        assert screen.exit_code() == 0
        assert screen.is_clean()
    finally:
        screen.close()


def test_a_dashboard_that_is_suspended_starts_nothing_twice(run: RunDir) -> None:
    """The threads of a second start would never end, and the process with them."""
    screen = terminal(run)
    try:
        tasks = Path(f"/proc/{screen.process.pid}/task")
        before = len(list(tasks.iterdir()))
        for _ in range(3):
            time.sleep(1.2 * LATE_SECONDS)
            os.kill(screen.process.pid, signal.SIGSTOP)
            os.kill(screen.process.pid, signal.SIGCONT)
            screen.output = b""
            screen.wait_for(ALTERNATE_SCREEN)
            screen.wait_for(b"TRAINING")
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            screen.read(0.1)
            assert len(list(tasks.iterdir())) <= before
        screen.press(b"q")
        assert screen.exit_code() == 0 and screen.is_clean()
    finally:
        screen.close()


def test_ctrl_z_without_a_shell_stops_nothing(run: RunDir) -> None:
    screen = terminal(run)
    try:
        screen.press(b"\x1a")
        screen.wait_for(b"shell to go back to")
        screen.press(b"q")
        assert screen.exit_code() == 0
    finally:
        screen.close()


@pytest.mark.parametrize("by", ["SIGINT", "ctrl+c"])
def test_the_owner_stops_the_run_and_waits(run: RunDir, by: str) -> None:
    screen = terminal(run, "--owner")
    try:
        if by == "SIGINT":
            screen.process.send_signal(signal.SIGINT)
        else:
            screen.press(b"\x03")
        screen.wait_for(b"STOPPING")
        assert [request.command for request in run.take_requests()] == ["stop"]
        finish(run)
        assert screen.exit_code() == exit_codes.STOPPED_BY_OWNER == 10
        assert screen.is_clean()
    finally:
        screen.close()
