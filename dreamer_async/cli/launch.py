"""Start the trainer in its own session, with the dashboard in front of it.

The launcher owns the terminal and nothing else: the trainer lives on when the launcher, the
dashboard or the terminal goes away, and is reached through its run directory from then on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from dreamer_async.cli.terminal import on_terminal
from dreamer_async.config.schema import ConfigError
from dreamer_async.machine.console import printable
from dreamer_async.machine.interpreter import command, environment
from dreamer_async.store import exit_codes
from dreamer_async.store.regular_file import open_regular
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir

LOG_TAIL = 15
"""Lines of the log that are shown when a trainer fails."""
_MODES = (1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2048)
"""Mouse (of all kinds), focus, bracketed paste, held output, sizes as input."""
_LEAVE_SCREEN = (
    "\x18\x1b\\\x1b[<u"  # ends a sequence that was cut; the keyboard protocol goes with its screen
    + "".join(f"\x1b[?{mode}l" for mode in _MODES)
    + "\x1b[?1049l\x1b[?25h\x1b[?7h\x1b[0m"
)
"""Back to the normal screen, cursor and line wrap on, all modes of a dashboard off."""


class _HungUp(Exception):
    """The terminal is gone."""


def start_trainer(
    run: RunDir,
    *,
    resume: bool,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    devices: int = 1,
    restarts: int = 0,
) -> subprocess.Popen[bytes]:
    """Start the trainer in a session of its own; what it prints goes to the run's log.

    `variables` are added to its environment. On several devices it is a launcher of ranks.
    """
    ranks = [f"--devices={devices}", f"--max-restarts={restarts}"] if devices > 1 else []
    options = [*ranks, *(["--resume"] if resume else []), *(f"--set={text}" for text in overrides)]
    log = open_regular(run.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            command("dreamer_async", "trainer", *options, run.path),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment() | dict(variables or {}),
            start_new_session=True,
        )
    finally:
        os.close(log)


def find_shown(root: Path, refs: Sequence[str]) -> list[RunDir | SweepDir]:
    """What a dashboard is to show: a run with others laid over it, or one sweep."""
    sweeps = [sweep for ref in refs if (sweep := SweepDir.find(root, ref))]
    if len(sweeps) == len(refs) == 1:
        return [*sweeps]
    if sweeps:
        raise ConfigError(f"{sweeps[0].name} is a sweep: watch it alone, without other runs")
    return [RunDir.find(root, ref) for ref in refs]


def dashboard_command(*runs: RunDir | SweepDir, options: Sequence[str] = ()) -> list[str]:
    """Command line of a dashboard for a run, with others laid over it."""
    return command("dreamer_async.tui", *(run.path for run in runs), *options)


def become_dashboard(
    runs: Sequence[RunDir | SweepDir], options: Sequence[str] = (), *, terminal: bool = True
) -> NoReturn:
    """Let a dashboard of these runs be all that this process is from now on.

    On a terminal this one stays behind it: a dashboard that crashes cannot tidy up itself.
    """
    if terminal and not on_terminal():
        raise ConfigError("watch needs a terminal; `dreamer-async runs show` prints the numbers")
    line = dashboard_command(*runs, options=options)
    sys.stdout.flush()
    if not terminal:
        os.execve(line[0], line, environment())  # noqa: S606  our own interpreter and arguments
    sys.exit(_watch_over(line))


def _watch_over(line: Sequence[str]) -> int:
    """Run a dashboard, pass signals on, and leave the terminal as it was; the exit code."""
    shown: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        for dashboard in shown:
            dashboard.send_signal(number)

    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    with _handling(dict.fromkeys(numbers, pass_on)), _terminal_restored() as spoiled:
        shown.append(subprocess.Popen(line, env=environment()))
        code = shown[0].wait()
        spoiled.set(code != 0)
    if code < 0:
        print(
            f"the dashboard was ended by {_signal(-code)}; the run is not affected", file=sys.stderr
        )
        return exit_codes.DASHBOARD
    return code


def _lineage(pid: Any) -> Iterator[int]:
    """A process and its parent: a rank of a run is a child of the launcher."""
    if isinstance(pid, int):
        yield pid
        with contextlib.suppress(OSError, IndexError, ValueError):
            yield int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


@contextlib.contextmanager
def _handling(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Handle signals for a while."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(number: int) -> str:
    return f"signal {number} ({signal.strsignal(number)})"


class Foreground:
    """A trainer in the background and its dashboard in front, as one job of the terminal.

    SIGINT and SIGTERM are passed to the trainer, whose exit code becomes ours. SIGHUP, a
    detached or a broken dashboard leave the trainer alone: only a person's key asks it to stop.
    """

    def __init__(self, run: RunDir, trainer: subprocess.Popen[bytes], out: IO[str]) -> None:
        self.run = run
        self._trainer = trainer
        self._dashboard: subprocess.Popen[bytes] | None = None
        self._out = out
        self._asked = False

    def show(self, dashboard: list[str]) -> int:
        """Run the dashboard until it ends or a signal asks; returns the exit code for the shell."""
        with self._signals(), _terminal_restored() as spoiled, self.run.held() as held:
            try:
                try:
                    if self._wait_for_lock() and not self._asked:
                        self._dashboard = subprocess.Popen(dashboard, env=environment())
                    code = self._wait()
                finally:
                    self._end_dashboard()
            except _HungUp:
                self._end_dashboard()
                return 0
            spoiled.set(code not in (None, 0, exit_codes.STOPPED_BY_OWNER))
            self.run = held.place()  # it may have been renamed meanwhile
        return self._conclude(code)

    # -- waiting -----------------------------------------------------------------------------

    def _wait_for_lock(self, pause: float = 0.05) -> bool:
        """Wait until the trainer has the run; False if it ended before."""
        while self._trainer.poll() is None:
            owner = self.run.owner()
            if owner is not None and self._trainer.pid in _lineage(owner.get("pid")):
                return True
            time.sleep(pause)
        return False

    def _wait(self) -> int | None:
        """Wait for the dashboard, or for the trainer if we asked it; returns the former's code."""
        while True:
            trainer_gone = self._trainer.poll() is not None
            code = None if self._dashboard is None else self._dashboard.poll()
            if trainer_gone and (self._asked or self._dashboard is None):
                return code
            if self._dashboard is not None and code is not None and not self._asked:
                if code == exit_codes.STOPPED_BY_OWNER:
                    self._trainer.wait()
                return code
            # WNOWAIT: only learn that a child ended; its Popen collects it
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)

    def _end_dashboard(self) -> None:
        """Detach a dashboard that still runs; it restores the terminal itself if it can."""
        dashboard = self._dashboard
        if dashboard is None or dashboard.poll() is not None:
            return
        dashboard.send_signal(signal.SIGHUP)
        try:
            dashboard.wait(3.0)
        except subprocess.TimeoutExpired:
            dashboard.kill()
            dashboard.wait()

    # -- signals -----------------------------------------------------------------------------

    def _signals(self) -> contextlib.AbstractContextManager[None]:
        return _handling(
            {
                signal.SIGINT: self._forward,
                signal.SIGTERM: self._forward,
                signal.SIGHUP: self._hang_up,
            }
        )

    def _forward(self, number: int, _: FrameType | None) -> None:
        """Pass a signal to the trainer, or close the dashboard of one that is gone.

        A process id stays the child's until its exit code has been collected.
        """
        self._asked = True
        with contextlib.suppress(ProcessLookupError):
            if self._trainer.returncode is None:
                os.kill(self._trainer.pid, number)
            elif self._dashboard is not None and self._dashboard.returncode is None:
                os.kill(self._dashboard.pid, signal.SIGHUP)

    def _hang_up(self, *_: Any) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # once is enough, wherever it hits
        raise _HungUp

    # -- last words --------------------------------------------------------------------------

    def _conclude(self, dashboard_code: int | None) -> int:
        """Say how the trainer ended, or how to come back to it."""
        code = self._trainer.poll()
        if code is None and self.run.owner() is None:  # done and saved, only not gone yet
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._trainer.wait(30.0)
        if code is None:
            if dashboard_code:
                how = (
                    f"exit code {dashboard_code}"
                    if dashboard_code > 0
                    else _signal(-dashboard_code)
                )
                self._say(f"the dashboard failed ({how}); the run keeps training")
            self._say(
                f"detached from {self.run.name}, which keeps training: "
                f"`dreamer-async watch {self.run.name}` attaches again, "
                f"`dreamer-async stop {self.run.name}` saves and ends it"
            )
            return exit_codes.DASHBOARD if dashboard_code else 0
        if code:
            for line in log_tail(self.run):
                self._say(line)
            self._say(f"{self.run.name} failed (exit code {code}); its log: {self.run.log_path}")
        else:
            from dreamer_async.store.summary import summarize  # a dashboard needs no settings

            end = summarize(self.run)
            more = f"; continue with `dreamer-async resume {end.name}`"
            self._say(
                f"{end.name} {end.state} at step {end.env_steps:,} of {end.steps:,}"
                f"{'' if end.state == 'completed' else more}"
            )
        return code if code >= 0 else 128 - code

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class _Spoiled:
    """Whether a dashboard may have left the terminal in a state that is not a shell's."""

    def __init__(self) -> None:
        self.certain = False

    def set(self, certain: bool) -> None:
        """Say that it has, whatever the terminal's own settings say."""
        self.certain = certain


@contextlib.contextmanager
def _terminal_restored() -> Iterator[_Spoiled]:
    """Bring the terminal back to what it was, even if the dashboard was killed."""
    spoiled = _Spoiled()
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        yield spoiled
        return
    before = termios.tcgetattr(fd)
    try:
        yield spoiled
    finally:
        with contextlib.suppress(OSError, termios.error):
            if spoiled.certain or termios.tcgetattr(fd) != before:
                os.write(fd, _LEAVE_SCREEN.encode())
                termios.tcsetattr(fd, termios.TCSAFLUSH, before)  # what the mouse said goes
        os.close(fd)


def log_tail(run: RunDir, lines: int = LOG_TAIL) -> list[str]:
    """The last lines of a run's log, without control characters."""
    try:
        with open(open_regular(run.log_path), encoding="utf-8", errors="replace") as file:
            last = deque(file, lines)
    except OSError:
        return []
    return [printable(line).rstrip("\n") for line in last]
