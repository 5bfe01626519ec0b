"""What the dashboard costs: until it shows something, while it follows, and what the trainer loses.

The dashboard runs as `watch` starts it, on a pseudo-terminal of 120x40; the clock starts before its
process and stops when the awaited word has been written to the terminal. The first of several
starts is not counted: it may have to compile the sources, as the first one after an installation.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dreamer_async.bench.apart import BenchError
from dreamer_async.bench.pipeline import PATIENCE_S, Progress, wait_until
from dreamer_async.bench.stream import MARK, append_beat, write_stream
from dreamer_async.bench.timing import Timing, timing
from dreamer_async.config import Config, override, to_dict
from dreamer_async.envs.children import bound
from dreamer_async.machine.interpreter import command, environment
from dreamer_async.store.run_dir import RunDir

EVENTS = 1_000_000
"""Of the long run."""
SHORT_EVENTS = 2_000
"""Of the run whose first paint is measured: about a quarter of an hour."""
POINTS = 100_000
"""Of the measured chart."""
STARTS = 5
"""Times that a dashboard is started for each measured start."""
LAST_ROW = b"overview"
"""A word of the row that is painted last."""
FOLLOW_HZ = 4
SETTLE_S = 3.0
"""What a dashboard gets to read up and to end its first paint before it is measured."""
NICE = 19
"""Of the dashboard beside a trainer."""
PATIENCE_SCREEN_S = 120.0
_COLUMNS, _ROWS = 120, 40


def dashboard(config: Config, seconds: float, pairs: int = 0) -> list[Timing]:
    """Time starts, the newest hour of a long run, a chart, following, and pairs of a trainer.

    Each half of a pair lasts `seconds`; following takes as long.
    """
    rows = [_chart()]
    with made_run(SHORT_EVENTS) as run:
        rows += [_start(run, "first paint")]
        rows += [_following(run, max(1.0, seconds))]
    with made_run(EVENTS) as run:
        rows += [_newest_hour(run), _start(run, f"first paint of {EVENTS:,} events")]
    for threads in (1, 2) if pairs else ():
        rows += trainer_pairs(config, threads, pairs, seconds)
    return rows


@contextmanager
def made_run(events: int) -> Iterator[RunDir]:
    """A run with a made-up stream and a held lock, in a temporary directory."""
    with TemporaryDirectory(prefix="dreamer-async-") as folder:
        run = RunDir.create(Path(folder), "bench", config={})
        write_stream(run.events_path, events)
        with run.lock():
            yield run


# -- starting ------------------------------------------------------------------------------------


def _start(run: RunDir, what: str) -> Timing:
    """Until the last row is there, below one that says what the stream ends with."""
    seconds = []
    for _ in range(STARTS + 1):
        with Screen(run) as screen:
            screen.wait_for(MARK)
            seconds.append(screen.wait_for(LAST_ROW))
    return timing("dashboard", what, "s", seconds[1:])


def _environment() -> dict[str, str]:
    """A user's: with a terminal, and with bytecode kept from one start to the next."""
    forbidding = "PYTHONDONTWRITEBYTECODE"
    return {k: v for k, v in environment().items() if k != forbidding} | {"TERM": "xterm-256color"}


def _newest_hour(run: RunDir) -> Timing:
    times = [_measured("hour", str(run.path))[0] for _ in range(STARTS)]
    size = run.events_path.stat().st_size / 1e6
    return timing("dashboard", f"newest hour of {EVENTS:,} events", "s", times, megabytes=size)


def _chart() -> Timing:
    times = _measured("chart", str(POINTS))
    return timing("dashboard", f"chart of {POINTS:,} points", "s/redraw", times)


def _measured(*arguments: str) -> list[float]:
    """Seconds that `tui.measure` found in a process of its own."""
    words = bound(command("dreamer_async.tui.measure", *arguments))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"dreamer_async.tui.measure failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


# -- following -----------------------------------------------------------------------------------


def _following(run: RunDir, seconds: float) -> Timing:
    """Processor seconds per second while events come four times a second."""
    shares = []
    with Screen(run) as screen:
        screen.wait_for(MARK)
        screen.drain(SETTLE_S)
        for _ in range(3):
            began, spent = time.monotonic(), screen.processor_seconds()
            while time.monotonic() - began < seconds / 3:
                append_beat(run.events_path)
                screen.drain(1 / FOLLOW_HZ)
            elapsed = time.monotonic() - began
            shares.append((screen.processor_seconds() - spent) / elapsed)
    what = f"following at {FOLLOW_HZ} Hz"
    middle = sorted(shares)[1]
    return timing("dashboard", what, "s of a core per s", shares, share_of_a_core=middle)


# -- beside a trainer ----------------------------------------------------------------------------


def trainer_pairs(config: Config, threads: int, pairs: int, seconds: float) -> list[Timing]:
    """Seconds per update of a real run, in turn with and without an attached dashboard.

    The order changes from pair to pair, so that a drift of the machine falls on both.
    """
    steady = "train.steps=1_000_000_000", "train.checkpoint_seconds=1e9"
    config = override(config, (*steady, f"train.threads={threads}"))
    with TemporaryDirectory(prefix="dreamer-async-") as folder:
        run = RunDir.create(Path(folder), "bench", config=to_dict(config))
        words = bound(command("dreamer_async", "trainer", run.path))
        with subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as trainer:
            try:
                started = Progress(run)
                wait_until(trainer, lambda: started.updates() > 0, PATIENCE_S)
                return _pairs(run, trainer, threads, pairs, seconds)
            finally:
                trainer.terminate()
                trainer.wait()


def _pairs(
    run: RunDir, trainer: subprocess.Popen[bytes], threads: int, pairs: int, seconds: float
) -> list[Timing]:
    times: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs):
        for attached in (True, False) if pair % 2 else (False, True):
            times[attached].append(_update_seconds(run, trainer, seconds, attached=attached))
    lost = sorted(1 - a / w for w, a in zip(times[True], times[False], strict=True))
    detail = {
        "share_of_updates_lost": statistics.median(lost),
        "share_in_the_mean": statistics.mean(lost),
        "share_at_least": lost[0],
        "share_at_most": lost[-1],
    }
    if pairs > 1:
        detail["share_standard_error"] = statistics.stdev(lost) / pairs**0.5
    where = f"{threads} threads" if threads > 1 else "1 thread"
    return [
        timing("dashboard", f"update, watched, {where}", "s/update", times[True], **detail),
        timing("dashboard", f"update, alone, {where}", "s/update", times[False]),
    ]


def _update_seconds(
    run: RunDir, trainer: subprocess.Popen[bytes], seconds: float, *, attached: bool
) -> float:
    """Mean seconds per update over a while, from one reported update to another."""
    if not attached:
        return _progress(run, trainer, seconds, time.sleep)
    with Screen(run, nice=NICE) as screen:
        screen.wait_for(b"returns")
        screen.drain(SETTLE_S)
        return _progress(run, trainer, seconds, screen.drain)


def _progress(
    run: RunDir,
    trainer: subprocess.Popen[bytes],
    seconds: float,
    pause: Callable[[float], None],
) -> float:
    progress = Progress(run, from_now=True)
    limit = PATIENCE_S + seconds
    wait_until(trainer, lambda: progress.seconds() >= seconds, limit, pause)
    return progress.seconds() / progress.updates()


# -- the terminal --------------------------------------------------------------------------------


def _processor_seconds(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Screen:
    """A `watch` of a run on a pseudo-terminal; leaving the block detaches it."""

    def __init__(self, run: RunDir, nice: int = 0) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        words = bound(command("dreamer_async", "watch", run.path))
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            ["nice", f"-n{nice}", *words] if nice else words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=_environment(),
            start_new_session=True,
        )
        os.close(slave)
        self._seen = b""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        end = time.monotonic() + PATIENCE_SCREEN_S
        while self._process.poll() is None:
            if time.monotonic() > end:
                self._process.kill()
            self._read(0.01)
        os.close(self._master)

    def wait_for(self, word: bytes) -> float:
        """Seconds from the start of the process until a word is on the terminal."""
        while word not in self._seen:
            if self._process.poll() is not None or self._age() > PATIENCE_SCREEN_S:
                raise BenchError(f"the dashboard did not show {word!r}: {self._seen[-300:]!r}")
            self._seen = self._seen[-1000:] + self._read(0.05)
        return self._age()

    def drain(self, seconds: float) -> None:
        """Take what the dashboard writes for a while, as a terminal does."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    def processor_seconds(self) -> float:
        """What the dashboard, and the process behind which it runs, have used so far."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sum(map(_processor_seconds, [str(pid), *children]))

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _read(self, seconds: float) -> bytes:
        if select.select([self._master], [], [], seconds)[0]:
            with suppress(OSError):  # closed by the other side
                return os.read(self._master, 1 << 16)
        return b""
