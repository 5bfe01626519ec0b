"""The launcher: who dies, who lives on, and what the shell is told."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamer_async.cli import launch, main
from dreamer_async.cli.launch import Foreground, command, environment, log_tail, start_trainer
from dreamer_async.config import resolve, to_dict
from dreamer_async.store import exit_codes
from dreamer_async.store.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[2]
TRAINER = """
import signal, sys, threading
from pathlib import Path
from dreamer_async.store.run_dir import RunDir
code = int(sys.argv[2])
stop = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
run = RunDir(Path(sys.argv[1]))
with run.lock():
    while not stop.is_set() and not any(r.command == "stop" for r in run.take_requests()):
        stop.wait(0.02)
sys.exit(code)
"""
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
LAUNCHER = """
import json, subprocess, sys
from pathlib import Path
from dreamer_async.cli.launch import Foreground
from dreamer_async.store.run_dir import RunDir
path, trainer, dashboard = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
null = subprocess.DEVNULL
child = subprocess.Popen(trainer, start_new_session=True, stdin=null, stdout=null, stderr=null)
print("pid", child.pid, flush=True)
sys.exit(Foreground(RunDir(Path(path)), child, sys.stdout).show(dashboard))
"""
ANNOUNCED = """
import os, time
launcher = os.getppid()
print('dashboard', flush=True)
while os.getppid() == launcher: time.sleep(0.05)
"""
"""A dashboard that ends with its launcher, so that a test that kills one leaves nothing behind."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    config = resolve("toy", "catch")
    return RunDir.create(tmp_path / "runs", "toy-catch", config=to_dict(config))


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def trainer_line(run: RunDir, code: int = 0) -> list[str]:
    return [sys.executable, "-c", TRAINER, str(run.path), str(code)]


@contextlib.contextmanager
def fake_trainer(run: RunDir, code: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(trainer_line(run, code), start_new_session=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def exits(code: int, before: str = "") -> list[str]:
    return [sys.executable, "-c", f"{before}\nraise SystemExit({code})"]


# -- how the dashboard ends ------------------------------------------------------------------


def test_detaching_leaves_the_trainer_and_says_how_to_come_back(run: RunDir) -> None:
    out = io.StringIO()
    with fake_trainer(run) as trainer:
        assert Foreground(run, trainer, out).show(exits(0)) == 0
        assert trainer.poll() is None
    assert f"dreamer-async watch {run.name}" in out.getvalue()
    assert f"dreamer-async stop {run.name}" in out.getvalue()


def test_a_run_that_was_renamed_is_called_by_its_new_name(run: RunDir) -> None:
    out = io.StringIO()
    rename = f"import os; os.rename({str(run.path)!r}, {str(run.path.with_name('new'))!r})"
    with fake_trainer(run) as trainer:
        assert Foreground(run, trainer, out).show(exits(0, rename)) == 0
        assert trainer.poll() is None
    assert "detached from new, " in out.getvalue() and run.name not in out.getvalue()


def test_a_dashboard_that_asked_to_stop_waits_for_the_trainer(run: RunDir) -> None:
    ask = (
        "from pathlib import Path\nfrom dreamer_async.store.run_dir import RunDir\n"
        f"RunDir(Path({str(run.path)!r})).request('stop')"
    )
    with fake_trainer(run, code=74) as trainer:
        assert Foreground(run, trainer, io.StringIO()).show(exits(10, ask)) == 74


def test_a_broken_dashboard_does_not_stop_the_run(run: RunDir) -> None:
    out = io.StringIO()
    with fake_trainer(run) as trainer:
        assert Foreground(run, trainer, out).show(exits(3)) == exit_codes.DASHBOARD
        assert trainer.poll() is None
    assert "the dashboard failed (exit code 3); the run keeps training" in out.getvalue()


@pytest.mark.faults
def test_a_killed_dashboard_does_not_stop_the_run(run: RunDir) -> None:
    out = io.StringIO()
    suicide = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with fake_trainer(run) as trainer:
        assert Foreground(run, trainer, out).show(suicide) == exit_codes.DASHBOARD
        assert trainer.poll() is None
    assert "signal 9 (Killed)" in out.getvalue()


# -- how the trainer ends --------------------------------------------------------------------


def test_a_trainer_that_dies_early_shows_its_last_words_and_no_dashboard(run: RunDir) -> None:
    run.log_path.write_text("".join(f"line {i}\x1b[2J\n" for i in range(100)))
    out = io.StringIO()
    trainer = subprocess.Popen(exits(74))
    marker = run.path / "shown"
    shows = exits(0, f"open({str(marker)!r}, 'w')")
    assert Foreground(run, trainer, out).show(shows) == 74
    assert not marker.exists()
    lines = out.getvalue().splitlines()
    assert lines[0] == "line 85[2J"
    assert lines[14] == "line 99[2J"
    assert "exit code 74" in lines[15]
    assert str(run.log_path) in lines[15]


def test_a_dashboard_stays_after_the_run_until_it_is_closed(run: RunDir) -> None:
    stop_then_look = (
        "import time\nfrom pathlib import Path\nfrom dreamer_async.store.run_dir import RunDir\n"
        f"run = RunDir(Path({str(run.path)!r}))\nrun.request('stop')\n"
        "while run.owner() is not None: time.sleep(0.01)\n"
        "(run.path / 'seen').touch()"
    )
    with fake_trainer(run, code=70) as trainer:
        assert Foreground(run, trainer, io.StringIO()).show(exits(0, stop_then_look)) == 70
    assert (run.path / "seen").exists()


def test_a_trainer_killed_by_a_signal_is_128_plus_the_number(run: RunDir) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert Foreground(run, trainer, io.StringIO()).show(exits(0)) == 137


def test_log_tail_of_a_missing_log_is_empty(run: RunDir) -> None:
    assert log_tail(run) == []


# -- signals ---------------------------------------------------------------------------------


@contextlib.contextmanager
def launcher(
    run: RunDir, trainer: list[str], dashboard: list[str], code: str = LAUNCHER
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A launcher in its own process with its dashboard up, and the pid of its trainer."""
    line = [sys.executable, "-c", code, run.path, json.dumps(trainer), json.dumps(dashboard)]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid = int(child.stdout.readline().split()[1])
    try:
        assert child.stdout.readline() == "dashboard\n"
        yield child, pid
    finally:
        for victim in (child.pid, pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_trainer_and_its_exit_code_is_ours(run: RunDir, number: int) -> None:
    dashboard = [sys.executable, "-c", ANNOUNCED]
    with launcher(run, trainer_line(run, 75), dashboard) as (child, _):
        child.send_signal(number)
        assert child.wait(120) == 75
        assert run.owner() is None


def test_a_hang_up_leaves_the_trainer(run: RunDir) -> None:
    dashboard = [sys.executable, "-c", ANNOUNCED]
    with launcher(run, trainer_line(run), dashboard) as (child, pid):
        child.send_signal(signal.SIGHUP)
        assert child.wait(120) == 0
        owner = run.owner()
        assert owner is not None
        assert owner["pid"] == pid


OWNER = """
import signal, sys, time
from pathlib import Path
from dreamer_async.store.run_dir import RunDir
def stop(*_):
    RunDir(Path(sys.argv[1])).request("stop")
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, lambda *_: sys.exit(0))
print("dashboard", flush=True)
while True: time.sleep(0.02)
"""
"""A dashboard whose user's wish to stop and whose lost terminal are two things."""


@pytest.mark.faults
@pytest.mark.parametrize("detach", [signal.SIGHUP, signal.SIGTERM], ids=["real", "control"])
def test_a_hang_up_detaches_the_dashboard_and_asks_for_nothing(run: RunDir, detach: int) -> None:
    """The control is a launcher that ends its dashboard in a way that means stop to it."""
    wrong = LAUNCHER.replace(
        "sys.exit(Foreground",
        "import time\n"
        "from dreamer_async.cli import launch\n"
        "ends = launch.Foreground._end_dashboard\n"
        "def wrong(self):\n"
        "    dashboard, run = self._dashboard, self.run\n"
        f"    dashboard.send_signal({int(detach)})\n"
        "    while dashboard.poll() is None and run.owner():  # it is gone, or its wish is heard\n"
        "        time.sleep(0.05)\n"
        "    ends(self)\n"
        "launch.Foreground._end_dashboard = wrong\n"
        "sys.exit(Foreground",
    )
    dashboard = [sys.executable, "-c", OWNER, str(run.path)]
    with launcher(run, trainer_line(run), dashboard, wrong) as (child, pid):
        child.send_signal(signal.SIGHUP)
        assert child.wait(120) == 0
        if detach == signal.SIGTERM:
            wait_until(lambda: run.owner() is None)
        else:
            owner = run.owner()
            assert owner is not None and owner["pid"] == pid


@pytest.mark.faults
def test_a_killed_launcher_leaves_the_trainer(run: RunDir) -> None:
    dashboard = [sys.executable, "-c", ANNOUNCED]
    with launcher(run, trainer_line(run), dashboard) as (child, _):
        child.kill()
        child.wait()
        assert run.owner() is not None


def test_a_signal_after_the_trainer_ended_closes_the_dashboard(run: RunDir) -> None:
    dashboard = [sys.executable, "-c", ANNOUNCED]
    with launcher(run, trainer_line(run), dashboard) as (child, pid):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 0


LEFT = tuple(
    f"\x1b[?{mode}".encode()
    for mode in (
        *("1049l", "25h", "7h", "1000l", "1002l", "1003l", "1004l", "1006l", "1015l", "1016l"),
        *("2004l", "2026l", "2048l"),
    )
)
"""Screen, cursor, line wrap, mouse, focus, paste, held output and sizes as a shell wants them."""
WATCH = """
import json, sys
from dreamer_async.cli import launch
launch.dashboard_command = lambda *runs, options=(): json.loads(sys.argv[3])
launch.become_dashboard([])
"""


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("command", ["train", "watch"])
def test_the_terminal_comes_back_after_a_killed_dashboard(
    run: RunDir, command: str, raw: bool, number: int
) -> None:
    spoil = (
        "import os, tty\n"
        "fd = os.open('/dev/tty', os.O_RDWR)\n"
        f"{raw} and tty.setraw(fd)\nos.write(fd, b'\\x1b[?1049h')\n"
        f"os.kill(os.getpid(), {int(number)})"
    )
    line = [sys.executable, "-c", LAUNCHER if command == "train" else WATCH, str(run.path)]
    line += [json.dumps(trainer_line(run)), json.dumps([sys.executable, "-c", spoil])]
    pid, master = pty.fork()
    if pid == 0:
        os.execve(line[0], line, environment())
    try:
        before = termios.tcgetattr(master)
        output = b""
        with contextlib.suppress(OSError):  # EIO: everything on the other side is closed
            while chunk := os.read(master, 65536):
                output += chunk
                if b"signal" in output:
                    assert termios.tcgetattr(master) == before
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(master)
        run.request("stop")
        wait_until(lambda: run.owner() is None)
    tidied = output.partition(b"\x1b[?1049h")[2]
    assert [mode for mode in LEFT if mode not in tidied] == []
    assert tidied.index(b"\x1b[<u") < tidied.index(b"\x1b[?1049l") < tidied.index(b"signal")
    assert os.waitstatus_to_exitcode(status) == exit_codes.DASHBOARD


# -- the processes that are started ----------------------------------------------------------


def test_our_processes_cannot_be_shadowed_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "tui").mkdir()
    (tmp_path / "tui" / "__init__.py").touch()
    (tmp_path / "tui" / "__main__.py").write_text("print('shadow')")
    line = command("dreamer_async.tui", "--help")
    shown = subprocess.run(
        line, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert "shadow" not in shown
    assert "run_dir" in shown


def test_the_trainer_has_a_session_of_its_own_and_logs_to_the_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak = "import os, sys; print(os.getsid(0) == os.getpid(), sys.argv[1:], sys.stdin.read())"
    monkeypatch.setattr(launch, "command", lambda *args: [sys.executable, "-c", speak, *args])
    assert start_trainer(run, resume=False).wait(120) == 0
    assert start_trainer(run, resume=True, overrides=["train.steps=9"]).wait(120) == 0
    words = ["dreamer_async", "trainer", str(run.path)]
    assert run.log_path.read_text().splitlines() == [
        f"True {words} ",
        f"True {[*words[:2], '--resume', '--set=train.steps=9', words[2]]} ",
    ]


def test_the_log_is_never_a_link(run: RunDir, tmp_path: Path) -> None:
    run.log_path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        start_trainer(run, resume=False)


def test_a_pipe_in_place_of_the_log_is_refused_and_not_waited_for(run: RunDir) -> None:
    os.mkfifo(run.log_path)
    with pytest.raises(OSError, match="is a pipe, not a regular file"):
        start_trainer(run, resume=False)


# -- everything together ---------------------------------------------------------------------


@pytest.mark.faults
def test_closing_a_real_terminal_lets_the_run_go_on_until_it_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a window does that is closed: the kernel sends SIGHUP to both processes at once."""
    settings = "train.batch_size=2 train.batch_length=8 train.train_ratio=1 replay.capacity=4000"
    line = [sys.executable, "-m", "dreamer_async", "train", "toy", "--device", "cpu"]
    line += ["--no-compile", "--size", "tiny", "--steps", "1e8", "--runs-dir", str(tmp_path)]
    for setting in settings.split():
        line += ["-s", setting]
    pid, master = pty.fork()
    if pid == 0:
        os.execve(line[0], line, environment() | {"TERM": "xterm-256color", "LINES": "40"})
    output, end = b"", time.monotonic() + 240
    while b"TRAINING" not in output:
        assert time.monotonic() < end, output[-2000:]
        if select.select([master], [], [], 0.1)[0]:
            output += os.read(master, 65536)
    run = RunDir.find(tmp_path, "last")
    owner = run.owner()
    assert owner is not None
    try:
        os.close(master)
        os.waitpid(pid, 0)
        size = run.events_path.stat().st_size
        wait_until(lambda: run.events_path.stat().st_size > size + 1000)
        assert run.owner() == owner and b'"stop"' not in run.events_path.read_bytes()
        assert os.getsid(owner["pid"]) == owner["pid"]
        assert main(["stop", "--runs-dir", str(tmp_path)]) == 0
        out, err = capsys.readouterr()
        assert "has stopped" in out and err == ""
        assert run.owner() is None and list(run.checkpoints.glob("step-*"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner["pid"], signal.SIGKILL)
