"""What a run looks like right now: `RunView`, and `reduce`, which folds one record into it.

All meaning of the dashboard lives here and nothing of Textual: a view that is rebuilt from the
file equals the one that watched the file grow. Every text that came from the file is clean
(`text.clean`) before it enters the view, and every number is finite.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from statistics import median
from typing import Any, TypeVar

from dreamer_async.events import (
    Checkpointed,
    Controlled,
    Episode,
    Evaluated,
    Gauges,
    Metrics,
    PhaseChanged,
    Record,
    Resumed,
    RunFinished,
    RunStarted,
    Warned,
)
from tui.series import Series
from tui.text import clean

MAX_NAMES = 400
"""Distinct metric names that are kept; a broken writer cannot fill the memory."""

SCALE_FLOOR = 1.0
"""Returns are divided by max(1, S)."""

RECENT_GAUGES = 600
"""Gauges events that are kept: the last ten minutes."""

Kept = TypeVar("Kept", RunStarted, Checkpointed, Resumed, Controlled, RunFinished)


@dataclass(frozen=True)
class Alert:
    """A warning of the trainer and when it came (unix seconds)."""

    level: str
    message: str
    time: float


@dataclass(frozen=True)
class LogLine:
    """Something that happened, in words."""

    level: str
    """info, warning or error."""
    text: str
    time: float
    """Unix seconds."""


@dataclass(frozen=True)
class EpisodeRow:
    """A finished episode."""

    number: int
    """Counted from 1."""
    time: float
    """Unix seconds."""
    env_steps: int
    env_id: int
    score: float | None
    length: int


@dataclass(frozen=True)
class Evaluation:
    """Episodes that were played for their scores."""

    time: float
    """Unix seconds."""
    env_steps: int
    updates: int
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean score."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Recent:
    """One gauges event."""

    ran: float
    """Seconds of running."""
    values: Mapping[str, float | None]


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


@dataclass
class RunView:
    """Everything the dashboard knows about one run."""

    started: RunStarted | None = None
    started_at: float = 0.0
    """Unix seconds of the newest start."""
    phase: str = ""
    phase_since: float = 0.0
    """Unix seconds at which the phase began."""
    env_steps: int = 0
    updates: int = 0
    generation: int = 0
    """Newest generation seen; a resumed run raises it."""
    resumed_update: float = math.inf
    """Older generations count only up to this update."""
    metrics: dict[str, Series] = field(default_factory=dict)
    metrics_seen: int = 0
    """Metrics events and resumes so far: the charts of metrics are as old as this number."""
    latest: dict[str, float | None] = field(default_factory=dict)
    """Newest value of every metric; None is a number that was not finite."""
    gauges: dict[str, float | None] = field(default_factory=dict)
    gauges_seen: int = 0
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=30))
    """Recent environment steps per second, for a calm ETA."""
    recent: deque[Recent] = field(default_factory=lambda: deque(maxlen=RECENT_GAUGES))
    clock: Clock = field(default_factory=Clock)
    episodes: Series = field(default_factory=lambda: Series(limit=65_536))
    lengths: Series = field(default_factory=lambda: Series(limit=65_536))
    rows: deque[EpisodeRow] = field(default_factory=lambda: deque(maxlen=1000))
    episode_count: int = 0
    best_score: float | None = None
    last_length: int = 0
    evaluations: deque[Evaluation] = field(default_factory=lambda: deque(maxlen=1000))
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=200))
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=2000))
    checkpoint: Checkpointed | None = None
    checkpoint_at: float = 0.0
    resumed: Resumed | None = None
    answer: Controlled | None = None
    finished: RunFinished | None = None
    last_time: float = 0.0
    """Unix seconds of the newest record."""
    records: int = 0
    """Records folded in so far."""


def reduce(view: RunView, record: Record) -> RunView:
    """Fold one record into the view and return it; the view is changed in place."""
    view.records += 1
    view.last_time = max(view.last_time, record.time)
    view.generation = max(view.generation, record.generation)
    view.clock.tick(record.mono, record.generation)
    match record.event:
        case Metrics() as event:
            _metrics(view, event, record.generation)
        case Gauges() as event:
            _gauges(view, event)
        case Episode() as event:
            _episode(view, event, record.time)
        case PhaseChanged() as event:
            _progress(view, event.env_steps, event.updates)
            _phase(view, event.phase, record.time)
        case RunStarted() as event:
            _started(view, _cleaned(event), record.time)
        case Resumed() as event:
            _resumed(view, _cleaned(event), record.time)
        case Checkpointed() as event:
            _checkpointed(view, _cleaned(event), record.time)
        case Evaluated() as event:
            _evaluated(view, event, record.time)
        case Warned() as event:
            _warned(view, event, record.time)
        case Controlled() as event:
            _controlled(view, _cleaned(event), record.time)
        case RunFinished() as event:
            _finished(view, _cleaned(event), record.time)
    return view


def rebuild(records: list[Record]) -> RunView:
    """Fold many records into a fresh view."""
    view = RunView()
    for record in records:
        reduce(view, record)
    return view


def number(value: object) -> float | None:
    """Return a finite number of bearable size, or None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    return max(-1e100, min(1e100, real)) if math.isfinite(real) else None


@lru_cache(maxsize=4096)
def _name(text: str) -> str:
    """Clean the name of a metric; the same few come again and again."""
    return clean(text, 60)


def _whole(value: object) -> int:
    return int(number(value) or 0)


def _cleaned(event: Kept) -> Kept:
    """Return a copy whose texts may be shown and whose numbers are finite."""
    values: dict[str, Any] = {part.name: getattr(event, part.name) for part in fields(event)}
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = clean(value, 500)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = type(value)(number(value) or 0)
    return replace(event, **values)


def _metrics(view: RunView, event: Metrics, generation: int) -> None:
    update = _whole(event.update)
    if generation < view.generation and update > view.resumed_update:
        return
    view.metrics_seen += 1
    _progress(view, event.env_steps, event.update)
    x, ran = max(0, _whole(event.env_steps)), view.clock.ran
    for name, raw in event.values.items():
        key = _name(name)
        if key not in view.latest and len(view.latest) >= MAX_NAMES:
            continue
        value = view.latest[key] = number(raw)
        if value is not None:
            series = view.metrics.get(key)
            if series is None:
                series = view.metrics[key] = Series()
            series.append(x, value, update, ran)


def _gauges(view: RunView, event: Gauges) -> None:
    view.gauges_seen += 1
    _progress(view, event.env_steps, event.updates)
    for name, raw in event.values.items():
        key = _name(name)
        if key in view.gauges or len(view.gauges) < MAX_NAMES:
            view.gauges[key] = number(raw)
    view.recent.append(Recent(view.clock.ran, dict(view.gauges)))
    rate = view.gauges.get("rate/env_steps")
    if rate is not None and view.phase == "training":
        view.rates.append(rate)


def _episode(view: RunView, event: Episode, time: float) -> None:
    score = number(event.score)
    view.episode_count += 1
    view.last_length = _whole(event.length)
    steps = max(0, _whole(event.env_steps))
    view.rows.append(
        EpisodeRow(view.episode_count, time, steps, _whole(event.env_id), score, view.last_length)
    )
    view.lengths.append(steps, view.last_length, view.updates, view.clock.ran)
    if score is None:
        return
    view.episodes.append(steps, score, view.updates, view.clock.ran)
    view.best_score = score if view.best_score is None else max(view.best_score, score)


def _evaluated(view: RunView, event: Evaluated, time: float) -> None:
    scores = tuple(score for raw in event.scores if (score := number(raw)) is not None)
    if not scores:
        return
    done = Evaluation(time, max(0, _whole(event.env_steps)), _whole(event.updates), scores)
    view.evaluations.append(done)
    text = f"evaluated update {done.updates:,}: mean {done.mean:.4g} of {len(scores)} episodes"
    _say(view, "info", text, time)


def _checkpointed(view: RunView, event: Checkpointed, time: float) -> None:
    view.checkpoint, view.checkpoint_at = event, time
    megabytes, seconds = event.bytes / 1e6, event.seconds
    _say(view, "info", f"saved {event.path} ({megabytes:.1f} MB in {seconds:.1f} s)", time)


def _say(view: RunView, level: str, text: str, time: float) -> None:
    view.log.append(LogLine(level, text, time))


def _progress(view: RunView, env_steps: object, updates: object) -> None:
    view.env_steps = max(0, _whole(env_steps))
    view.updates = max(0, _whole(updates))


def _phase(view: RunView, phase: str, time: float) -> None:
    name = clean(phase, 12).lower()
    if name != view.phase:
        view.phase, view.phase_since = name, time
        view.rates.clear()
        _say(view, "info", f"{name} at step {view.env_steps:,}, update {view.updates:,}", time)


def _started(view: RunView, event: RunStarted, time: float) -> None:
    view.started, view.started_at, view.finished = event, time, None
    view.gauges.clear()
    view.recent.clear()
    view.gauges_seen += 1
    _phase(view, "starting", time)


def _resumed(view: RunView, event: Resumed, time: float) -> None:
    view.resumed = event
    view.resumed_update = _whole(event.updates)
    view.metrics_seen += 1
    for series in view.metrics.values():
        series.cut(view.resumed_update)
    view.latest = {name: series.last for name, series in view.metrics.items() if len(series)}
    _progress(view, event.env_steps, event.updates)
    source = event.checkpoint or "no checkpoint"
    text = f"resumed from {source} at step {event.env_steps:,}, update {event.updates:,}"
    _say(view, "info", text, time)
    for skipped in event.skipped:
        _alert(view, "warning", f"checkpoint skipped: {clean(skipped, 400)}", time)


def _warned(view: RunView, event: Warned, time: float) -> None:
    _alert(view, clean(event.level, 10).lower(), clean(event.message, 500), time)


def _alert(view: RunView, level: str, text: str, time: float) -> None:
    view.alerts.append(Alert(level, text, time))
    _say(view, level, text, time)


def _controlled(view: RunView, event: Controlled, time: float) -> None:
    view.answer = event
    if event.answer == "refused":
        _alert(view, "warning", f"{event.command} refused: {event.reason}", time)
    else:
        _say(view, "info", f"{event.command} {event.answer}", time)


def _finished(view: RunView, event: RunFinished, time: float) -> None:
    view.finished = event
    _progress(view, event.env_steps, event.updates)
    _phase(view, "finished", time)
    if event.reason == "failed":
        text = event.message or f"the run failed with exit code {event.exit_code}"
        _alert(view, "error", text, time)


# --- what the screen asks -------------------------------------------------------------------


@dataclass(frozen=True)
class Trainer:
    """What this process knows about the trainer besides its events."""

    alive: bool | None = None
    """Somebody holds the run's lock; None while that is not known yet."""
    stop_requested_at: float | None = None
    """Unix seconds at which this dashboard asked for a stop."""


@dataclass(frozen=True)
class Phase:
    """The word on the chip, and since when (unix seconds; 0 means without a timer)."""

    name: str
    since: float = 0.0


def phase(view: RunView, trainer: Trainer) -> Phase:
    """Say what the run is doing, in one word."""
    if view.finished is not None:
        return Phase("failed" if view.finished.reason == "failed" else "finished")
    if trainer.alive is False:
        return Phase("lost", view.last_time)
    if trainer.stop_requested_at is not None:
        return Phase("stopping", trainer.stop_requested_at)
    if not view.phase:
        return Phase("waiting")
    return Phase(view.phase, 0.0 if view.phase == "training" else view.phase_since)


def eta_seconds(view: RunView) -> float | None:
    """Estimate the seconds until the planned steps are done, from the recent rate."""
    if view.started is None or view.finished is not None or not view.rates:
        return None
    rate = median(view.rates)
    left = _whole(view.started.steps) - view.env_steps
    return max(0, left) / rate if rate > 0 else None


def at_floor(view: RunView) -> bool:
    """Tell whether the return scale S sits at its floor, where returns are not scaled."""
    scale = view.latest.get("return/S")
    return scale is not None and scale <= SCALE_FLOOR
