"""The event stream: everything that leaves a run, one JSON object per line.

A line is {"type": ..., "time": unix seconds, "mono": monotonic seconds, "generation": int,
**fields of the event}. The stream is append-only; a resumed run raises `generation`.
Non-finite numbers are written as null. A kill can cut at most the line being written; the next
writer ends the torn line and readers skip it.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self, get_args

from dreamer_async.config.schema import LARGEST as LARGEST
from dreamer_async.config.schema import SchemaError, decode, encode
from dreamer_async.store.regular_file import open_regular, reading


@dataclass(frozen=True)
class RunStarted:
    """A trainer process began, at the start or after a resume."""

    run: str
    """Name of the run directory."""
    suite: str
    task: str
    size: str
    parameters: int
    """Trainable parameters, without the slow critic."""
    device: str
    precision: str
    num_envs: int
    steps: int
    """Planned agent steps."""
    frames_per_step: int
    train_ratio: float
    seed: int
    sync: bool
    compiled: bool
    """Updates are compiled, or computed by native functions."""
    replay_capacity: int
    """Steps."""
    replay_bytes: int
    pid: int
    version: str
    updates: int = 0
    """Planned updates of a run that learns from what was recorded; 0 where steps end a run."""
    ranks: int = 1
    """Processes that learn as one."""
    native: str = ""
    """Library of native functions that computes, by the name of its file; empty where none does."""


@dataclass(frozen=True)
class PhaseChanged:
    """What the trainer is doing now."""

    phase: str
    """starting, compiling, prefill, training, paused, stopping or finished."""
    env_steps: int
    updates: int


@dataclass(frozen=True)
class Metrics:
    """Means over the finite updates since the last of these events."""

    update: int
    """The newest of them, counted from the beginning of the run."""
    env_steps: int
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Flat, slashed names: loss/image, loss/reward, return/S, return/p5, opt/grad_norm, ..."""


@dataclass(frozen=True)
class Episode:
    """A finished training episode."""

    env_steps: int
    """Agent steps of the whole run when the episode ended."""
    env_id: int
    score: float | None
    """Undiscounted sum of raw rewards."""
    length: int
    """Agent steps of the episode."""
    log: Mapping[str, float | None] = field(default_factory=dict)
    """What else the environment says of it, such as achievements; empty for most."""


@dataclass(frozen=True)
class Gauges:
    """Rates and fill levels, once a second."""

    env_steps: int
    updates: int
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Flat, slashed names: rate/env_steps, rate/updates, replay/fill, ratio/actual, ..."""


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is on disk."""

    path: str
    """Relative to the run directory."""
    env_steps: int
    updates: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Warned:
    """Something a person should know."""

    level: str
    """info, warning or error."""
    message: str


@dataclass(frozen=True)
class Resumed:
    """A stopped or killed run goes on."""

    checkpoint: str
    """Relative path of the checkpoint that was loaded, or empty."""
    env_steps: int
    updates: int
    lost_updates: float
    """Updates that the ring had already paid for and that are forgiven."""
    skipped: tuple[str, ...] = ()
    """Checkpoints that did not verify, each with its reason."""


@dataclass(frozen=True)
class Controlled:
    """The answer to a request that came through the run directory."""

    command: str
    """stop, pause, resume, checkpoint, evaluate or film."""
    answer: str
    """accepted, done or refused."""
    reason: str = ""


@dataclass(frozen=True)
class Evaluated:
    """Episodes that were played for their scores while the run trained."""

    env_steps: int
    """Agent steps of the run when the weights were taken."""
    updates: int
    """The update that the weights came from."""
    scores: tuple[float, ...]
    """Undiscounted sum of raw rewards, per episode."""
    lengths: tuple[int, ...]
    """Agent steps, per episode."""
    seconds: float


@dataclass(frozen=True)
class RunFinished:
    """The trainer is about to exit."""

    reason: str
    """completed, stopped or failed."""
    env_steps: int
    """Agent steps of the whole run."""
    updates: int
    """Updates of the whole run."""
    exit_code: int
    """Of the trainer; docs/cli.md says what each one means."""
    message: str = ""
    """Why it ended; empty where there is nothing to say."""


Event = (
    RunStarted
    | PhaseChanged
    | Metrics
    | Episode
    | Gauges
    | Checkpointed
    | Warned
    | Resumed
    | Controlled
    | Evaluated
    | RunFinished
)

EVENT_TYPES: Mapping[str, type] = MappingProxyType(
    {re.sub("(?<=.)(?=[A-Z])", "_", kind.__name__).lower(): kind for kind in get_args(Event)}
)
"""Name in the stream -> type: run_started, phase_changed, metrics, ..."""
_NAMES = {kind: name for name, kind in EVENT_TYPES.items()}

MAX_LINE = 1 << 20
"""Longest line in bytes, newline included, that is written or read."""


class Record(NamedTuple):
    """One line of the stream."""

    event: Event
    time: float
    """Unix time in seconds; may jump."""
    mono: float
    """Monotonic time in seconds; only differences inside one generation mean anything."""
    generation: int
    """How many trainer processes wrote to the stream before this one."""


@dataclass
class Clock:
    """Seconds that the run ran, over all its trainers; jumps of the wall clock do not count."""

    ran: float = 0.0
    generation: int = -1
    _before: float = 0.0
    _start: float = 0.0

    def tick(self, mono: float, generation: int) -> None:
        """Move to a record's monotonic time; late lines of an older trainer change nothing."""
        if generation > self.generation:
            self.generation, self._before, self._start = generation, self.ran, mono
        if generation == self.generation and math.isfinite(mono):
            self.ran = max(self.ran, self._before + mono - self._start)


class EventWriter:
    """Append events to a stream, one `write` per line; a full disk never stops the caller.

    Safe to use from several threads. `dropped` counts events that could not be written.
    """

    def __init__(
        self,
        path: Path,
        generation: int,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = generation
        self.dropped = 0
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.Lock()
        self._fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._torn = _ends_torn(self._fd)

    def emit(self, event: Event) -> None:
        """Append one event; if the disk does not take it, drop and count it."""
        line = encode_line(event, self._clock(), self._monotonic(), self.generation)
        with self._lock:
            assert self._fd >= 0, "the event writer is closed"
            data = b"\n" + line if self._torn else line
            try:
                fits = len(data) <= MAX_LINE
                written = os.write(self._fd, data) if fits else 0
            except OSError:
                written = 0
            if 0 < written < len(data):
                self._torn = True
            elif written:
                self._torn = False
            self.dropped += written < len(data)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _ends_torn(fd: int) -> bool:
    """Tell whether the file's last line lacks its newline."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def encode_line(event: Event, clock: float, mono: float, generation: int) -> bytes:
    """Turn an event into its line, newline included."""
    head = {"type": _NAMES[type(event)], "time": clock, "mono": mono, "generation": generation}
    text = json.dumps(head | encode(event), allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def decode_line(line: bytes) -> Record:
    """Read one line back; raises ValueError if it is torn, of an unknown type or badly typed."""
    try:
        data = json.loads(line.decode())
    except RecursionError:
        raise SchemaError("nested too deeply") from None
    if not isinstance(data, dict):
        raise SchemaError("not an object")
    kind = data.pop("type", None)
    cls = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise SchemaError("unknown event type")
    head = decode(_Head, data, extra=True)
    _drop_non_finite(data)
    event = decode(cls, data, extra=True)
    return Record(event, head.time, head.mono, head.generation)


@dataclass(frozen=True)
class _Head:
    """What every line carries beside its event."""

    time: float
    mono: float
    generation: int


def _drop_non_finite(data: dict[str, Any]) -> None:
    """Turn numbers such as NaN and 1e999 into None, where our own writer would have."""
    values = data.get("values")
    for place in (data, values) if isinstance(values, dict) else (data,):
        for key, value in place.items():
            if isinstance(value, float) and not math.isfinite(value):
                place[key] = None


class EventReader:
    """Follow a stream by byte offset; what cannot be read is skipped and counted."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        """Byte at which the next read starts."""
        self.skipped = 0
        """Lines that were torn, unknown or badly typed."""

    def read(self, limit: int = 1 << 26) -> list[Record]:
        """Return the records of the next whole lines, at most about `limit` bytes of them.

        An unfinished last line stays for the next call. A file that became shorter than the
        offset is read from its start. A missing file has no records; raises
        NotRegular for what is no file.
        """
        records: list[Record] = []
        try:
            with reading(self.path) as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0
                file.seek(self.offset)
                end = self.offset + limit
                while self.offset < end and (line := file.readline(MAX_LINE)):
                    if not line.endswith(b"\n") and len(line) < MAX_LINE:
                        break
                    self.offset += len(line)
                    self._take(line, records)
        except FileNotFoundError:
            self.offset = 0
        return records

    def _take(self, line: bytes, records: list[Record]) -> None:
        """Decode one line, or count it; blank lines are nothing."""
        if not line.strip():
            return
        try:
            records.append(decode_line(line))
        except ValueError:
            self.skipped += 1


def read_events(path: Path, offset: int = 0) -> tuple[list[Record], int]:
    """Read every whole line from byte `offset` on; returns the records and the new offset."""
    reader, records = EventReader(path, offset), []
    while True:
        before = reader.offset
        records += reader.read()
        if reader.offset == before:
            return records, reader.offset


def next_generation(path: Path) -> int:
    """Return the generation for a new writer: 0 for a new stream, else one more than the last."""
    try:
        size = path.lstat().st_size
    except FileNotFoundError:
        return 0
    start = max(0, size - 4 * MAX_LINE)
    records, _ = read_events(path, start)
    if not records and start:
        records, _ = read_events(path)
    return 1 + max((record.generation for record in records), default=-1)
