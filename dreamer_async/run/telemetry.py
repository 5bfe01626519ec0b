"""What leaves a run: rates, stage shares and fill levels once a second, metrics and episodes.

Everything here runs on the event loop; the owned threads only add up seconds in `Stages`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import StepBatch
from dreamer_async.fast.native import load
from dreamer_async.machine.console import printable
from dreamer_async.store.events import (
    Checkpointed,
    Controlled,
    Episode,
    Evaluated,
    Event,
    Gauges,
    Metrics,
    PhaseChanged,
    Resumed,
    RunFinished,
    RunStarted,
    Warned,
)
from dreamer_async.store.sizes import in_words


class Position(NamedTuple):
    """Where a run stands."""

    env_steps: int = 0
    updates: int = 0


class Stages:
    """Seconds that each stage of the pipeline was busy, added up by whoever runs it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stages: dict[str, tuple[float, float | None]] = {}
        """Seconds of the finished blocks, and since when a block runs; always changed together."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time inside the block to the stage; one thread per stage."""
        done, _ = self._stages.get(stage, (0.0, None))
        since = self._clock()
        self._stages[stage] = done, since
        try:
            yield
        finally:
            self._stages[stage] = done + (self._clock() - since), None

    def totals(self) -> dict[str, float]:
        """Seconds of each stage so far, with what a running block has spent until now.

        They never fall, to the last digit: a block may begin or end in another thread after the
        look at the clock, and sums are added up in the same order as at its end.
        """
        now = self._clock()
        return {
            name: done if since is None else done + max(0.0, now - since)
            for name, (done, since) in self._stages.copy().items()
        }


LEAST_SECONDS = 0.2
"""Over which a rate is taken."""


class Rates:
    """Turns running totals into changes per second between two calls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._time = clock()
        self._totals: dict[str, float] = {}
        self._rates: dict[str, float] = {}

    def update(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Return each total's growth per second since the last call; 0 without a past.

        A moment after it, as at the end of a run, the same rates once more: a row or two in some
        milliseconds would be hundreds a second.
        """
        now = self._clock()
        elapsed = max(1e-9, now - self._time)
        if 1e-9 < elapsed < LEAST_SECONDS and self._rates.keys() >= totals.keys():
            return {name: self._rates[name] for name in totals}
        self._rates = rates = {
            name: (value - self._totals.get(name, value)) / elapsed
            for name, value in totals.items()
        }
        self._time, self._totals = now, dict(totals)
        return rates


class EpisodeTracker:
    """Adds up score and length of every environment's running episode."""

    def __init__(self, num_envs: int) -> None:
        self._score: NDArray[np.float64] = np.zeros(num_envs)
        self._length: NDArray[np.int64] = np.zeros(num_envs, np.int64)

    def update(self, step: StepBatch, env_steps: int) -> list[Episode]:
        """Count the rows and return the episodes that end with them."""
        ids = step.env_id
        self._score[ids] = np.where(step.is_first, 0.0, self._score[ids]) + step.reward
        self._length[ids] = np.where(step.is_first, 0, self._length[ids] + 1)
        return [self._episode(step, int(row), env_steps) for row in np.flatnonzero(step.is_last)]

    def running(self, step: StepBatch) -> list[Episode]:
        """The episodes that go on after these rows, as far as they are."""
        return [self._episode(step, int(row), 0) for row in np.flatnonzero(~step.is_last)]

    def _episode(self, step: StepBatch, row: int, env_steps: int) -> Episode:
        i = int(step.env_id[row])
        log = {name: float(values[row]) for name, values in step.log.items()}
        return Episode(env_steps, i, float(self._score[i]), int(self._length[i]), log)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Copies of the running sums, by name."""
        return {"score": self._score.copy(), "length": self._length.copy()}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on with the sums of `state()`, of as many environments."""
        self._score[:] = state["score"]
        self._length[:] = state["length"]


class Listener(Protocol):
    """Whoever shows events besides the stream."""

    def show(self, event: Event) -> None:
        """Show one event, or ignore it."""
        ...


class Sink(Protocol):
    """Where events go: an EventWriter, or what passes them on."""

    dropped: int

    def emit(self, event: Event) -> None:
        """Take one event."""
        ...


class Telemetry:
    """Writes events, and shows them to whoever else listens. Nothing here ends a run."""

    def __init__(self, writer: Sink, *listeners: Listener) -> None:
        self._writer = writer
        self._listeners = list(listeners)
        self._owners: Callable[[], Position] = Position
        self.phase = "starting"

    def follow(self, owners: Callable[[], Position]) -> None:
        """Ask whoever counts steps and updates where the run stands, from now on."""
        self._owners = owners

    @property
    def position(self) -> Position:
        """Where the run stands now; from any thread."""
        return self._owners()

    def emit(self, event: Event) -> None:
        """Write one event, and show it to the listeners; one that fails is not asked again."""
        self._writer.emit(event)
        for listener in self._listeners.copy():
            if listener not in self._listeners:  # it failed on the warning about another one
                continue
            try:
                listener.show(event)
            except Exception as error:  # such as a full disk, however a library words it
                self._listeners.remove(listener)
                what = getattr(listener, "name", type(listener).__name__)
                self.warn(f"{what} failed and gets no more events: {error or type(error).__name__}")

    @property
    def dropped(self) -> int:
        """Events that the disk did not take."""
        return self._writer.dropped

    def enter(self, phase: str) -> None:
        """Announce a phase, once."""
        if phase != self.phase:
            self.phase = phase
            self.emit(PhaseChanged(phase, *self.position))

    def warn(self, message: str, level: str = "warning") -> None:
        """Tell people something: a warning, or with level `info` a piece of news."""
        self.emit(Warned(level, message))


class Lines(Protocol):
    """Where lines go: a stream, or an Output."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class PlainLog:
    """One line for every phase, warning and checkpoint, and one of numbers every few seconds."""

    def __init__(
        self, out: Lines, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out = out
        self._seconds = seconds
        self._clock = clock
        self._next = clock() + seconds
        self._values: dict[str, float | None] = {}
        self._scores: deque[float] = deque(maxlen=20)
        self._frames_per_step = 1
        self._closed = False

    def show(self, event: Event) -> None:
        match event:
            case Metrics():
                self._values.update(event.values)
            case Episode():
                self._scores.append(event.score or 0.0)
            case Gauges():
                self._values.update(event.values)
                self._numbers(event)
            case PhaseChanged():
                at = self._at(event.env_steps)
                self._line(f"{event.phase}  ({at}, update {event.updates:,})")
            case Warned():
                self._line(f"{event.level}: {event.message}")
            case _:
                if isinstance(event, RunStarted):
                    self._frames_per_step = event.frames_per_step
                if (text := _sentence(event)) is not None:
                    self._line(text)

    def _numbers(self, event: Gauges) -> None:
        if self._clock() < self._next:
            return
        self._next = self._clock() + self._seconds
        parts = [self._at(event.env_steps), f"update {event.updates:,}"]
        if recent := len(self._scores):
            parts.append(f"return {sum(self._scores) / recent:.2f} (last {recent})")
        losses = ("loss/image", "loss/reward", "loss/dyn", "return/S")
        for name in (*losses, "rate/env_steps", "rate/updates"):
            if (value := self._values.get(name)) is not None:
                parts.append(f"{name} {value:.3g}")
        self._line("  ".join(parts))

    def _at(self, env_steps: int) -> str:
        """Agent steps, and frames where these are not the same."""
        repeat = self._frames_per_step
        frames = f" ({env_steps * repeat:,} frames)" if repeat > 1 else ""
        return f"step {env_steps:,}{frames}"

    def _line(self, text: str) -> None:
        """Print; a closed pipe silences the log and never stops training."""
        if self._closed:
            return
        try:
            self._out.write(f"{printable(text)}\n")
            self._out.flush()
        except (OSError, ValueError):
            self._closed = True


def _computing(event: RunStarted) -> str:
    """The device, and which native functions it has."""
    if not event.native:
        return event.device
    return f"{event.device} with native functions {load.in_words(event.native)}"


def _sentence(event: Event) -> str | None:
    match event:
        case RunStarted():
            return (
                f"run {event.run}: {event.suite}/{event.task}, {event.size} "
                f"({event.parameters:,} parameters) on {_computing(event)}, "
                f"{event.num_envs} environments, "
                f"frames per agent step: {event.frames_per_step}, "
                f"replay {in_words(event.replay_bytes)} ({event.replay_capacity:,} steps)"
            )
        case Resumed():
            source = event.checkpoint or "no checkpoint (the weights are new)"
            skipped = "".join(f"; skipped {reason}" for reason in event.skipped)
            at = f"step {event.env_steps:,}, update {event.updates:,}"
            return f"resumed from {source} at {at}{skipped}"
        case Checkpointed():
            return f"saved {event.path} ({event.bytes / 1e6:.1f} MB in {event.seconds:.1f} s)"
        case Evaluated():
            mean = sum(event.scores) / max(1, len(event.scores))
            return f"evaluated update {event.updates:,}: {mean:.2f} ({len(event.scores)} episodes)"
        case Controlled():
            return f"request {event.command}: {event.answer} {event.reason}".rstrip()
        case RunFinished():
            at = f"step {event.env_steps:,}, update {event.updates:,}"
            return f"{event.reason} at {at} {event.message}".rstrip()
        case _:
            return None


def process_gauges(workers: Iterable[int] = ()) -> dict[str, float]:
    """CPU seconds used so far by this process, and resident memory in GB with that of `workers`.

    Of workers only what they do not share with files counts, as pages of libraries and of the
    rows are the trainer's as well. (Their proportional share would be exact, but takes the kernel
    milliseconds for every gigabyte.)
    """
    times = os.times()
    own, _ = resident_bytes("self")
    theirs = sum(all_of_it - shared for all_of_it, shared in map(resident_bytes, workers))
    return {
        "cpu_seconds": times.user + times.system,
        "memory/rss_gb": (own + theirs) / 1e9,
        "memory/workers_gb": theirs / 1e9,
    }


def resident_bytes(pid: int | str) -> tuple[int, int]:
    """Resident memory of a process, and how much of it are pages of files; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages = [int(word) for word in file.read().split()[1:3]]
    except OSError:
        return 0, 0
    resident, shared = (count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    return resident, shared
