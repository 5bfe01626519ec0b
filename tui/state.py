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

FREE_NATS = 1.0
"""The KL losses have no gradient below this floor, in nats."""

SCALE_FLOOR = 1.0
"""Returns are divided by max(1, S)."""

LABELS: Mapping[str, str] = {
    "loss/reward": "reward",
    "loss/cont": "continue",
    "loss/dyn": "dynamics KL",
    "loss/rep": "represent. KL",
    "loss/actor": "actor",
    "loss/critic": "critic",
    "loss/replay_critic": "replay critic",
    "policy/entropy": "entropy",
    "opt/grad_norm": "grad norm",
    "loss/total": "total",
    "return/mean": "imagined return",
    "value/mean": "value",
    "adv/mag": "advantage",
    "policy/randomness": "randomness",
    "imagine/reward": "imagined reward",
    "rssm/posterior_entropy": "posterior ent.",
    "rssm/prior_entropy": "prior entropy",
    "opt/update_rms": "update rms",
}
"""What the charts are called, in their order; reconstructions come before all of them."""

REQUIRED = tuple(LABELS)[:9]
"""Always on the screen; the rest fills the room that is left."""

FLOORS: Mapping[str, float] = {"loss/dyn": FREE_NATS, "loss/rep": FREE_NATS}


Kept = TypeVar("Kept", RunStarted, Checkpointed, Resumed, Controlled, RunFinished)


@dataclass(frozen=True)
class Alert:
    """A warning of the trainer and when it came (unix seconds)."""

    level: str
    message: str
    time: float


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
    episodes: Series = field(default_factory=lambda: Series(limit=65_536))
    episode_count: int = 0
    best_score: float | None = None
    last_length: int = 0
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=200))
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
    match record.event:
        case Metrics() as event:
            _metrics(view, event, record.generation)
        case Gauges() as event:
            _gauges(view, event)
        case Episode() as event:
            _episode(view, event)
        case PhaseChanged() as event:
            _phase(view, event.phase, record.time)
            _progress(view, event.env_steps, event.updates)
        case RunStarted() as event:
            _started(view, _cleaned(event), record.time)
        case Resumed() as event:
            _resumed(view, _cleaned(event))
        case Checkpointed() as event:
            view.checkpoint, view.checkpoint_at = _cleaned(event), record.time
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
    x = max(0, _whole(event.env_steps))
    for name, raw in event.values.items():
        key = _name(name)
        if key not in view.latest and len(view.latest) >= MAX_NAMES:
            continue
        value = view.latest[key] = number(raw)
        if value is not None:
            view.metrics.setdefault(key, Series()).append(x, value, update)


def _gauges(view: RunView, event: Gauges) -> None:
    view.gauges_seen += 1
    _progress(view, event.env_steps, event.updates)
    for name, raw in event.values.items():
        key = _name(name)
        if key in view.gauges or len(view.gauges) < MAX_NAMES:
            view.gauges[key] = number(raw)
    rate = view.gauges.get("rate/env_steps")
    if rate is not None and view.phase == "training":
        view.rates.append(rate)


def _episode(view: RunView, event: Episode) -> None:
    score = number(event.score)
    view.episode_count += 1
    view.last_length = _whole(event.length)
    if score is None:
        return
    view.episodes.append(max(0, _whole(event.env_steps)), score)
    view.best_score = score if view.best_score is None else max(view.best_score, score)


def _progress(view: RunView, env_steps: object, updates: object) -> None:
    view.env_steps = max(0, _whole(env_steps))
    view.updates = max(0, _whole(updates))


def _phase(view: RunView, phase: str, time: float) -> None:
    name = clean(phase, 12).lower()
    if name != view.phase:
        view.phase, view.phase_since = name, time
        view.rates.clear()


def _started(view: RunView, event: RunStarted, time: float) -> None:
    view.started, view.started_at, view.finished = event, time, None
    view.gauges.clear()
    view.gauges_seen += 1
    _phase(view, "starting", time)


def _resumed(view: RunView, event: Resumed) -> None:
    view.resumed = event
    view.resumed_update = _whole(event.updates)
    view.metrics_seen += 1
    for series in view.metrics.values():
        series.cut(view.resumed_update)
    view.latest = {name: series.last for name, series in view.metrics.items() if len(series)}
    _progress(view, event.env_steps, event.updates)


def _warned(view: RunView, event: Warned, time: float) -> None:
    view.alerts.append(Alert(clean(event.level, 10).lower(), clean(event.message, 500), time))


def _controlled(view: RunView, event: Controlled, time: float) -> None:
    view.answer = event
    if event.answer == "refused":
        text = f"{event.command} refused: {event.reason}"
        view.alerts.append(Alert("warning", text, time))


def _finished(view: RunView, event: RunFinished, time: float) -> None:
    view.finished = event
    _phase(view, "finished", time)
    _progress(view, event.env_steps, event.updates)
    if event.reason == "failed":
        text = event.message or f"the run failed with exit code {event.exit_code}"
        view.alerts.append(Alert("error", text, time))


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


def reconstructions(view: RunView) -> list[str]:
    """Name the reconstruction losses: every loss that is none of the known ones."""
    return [name for name in view.latest if name.startswith("loss/") and name not in LABELS]


def required_charts(view: RunView) -> list[str]:
    """Name the metrics that are always drawn: reconstructions, then every other loss."""
    return [*(reconstructions(view) or ["loss/image"]), *REQUIRED]


def optional_charts(view: RunView) -> list[str]:
    """Name the metrics that fill the room which is left."""
    return [name for name in tuple(LABELS)[len(REQUIRED) :] if name in view.metrics]


def label(name: str) -> str:
    """Return what a metric's chart is called."""
    return LABELS.get(name, name.removeprefix("loss/") + " recon.")


def at_floor(view: RunView) -> bool:
    """Tell whether the return scale S sits at its floor, where returns are not scaled."""
    scale = view.latest.get("return/S")
    return scale is not None and scale <= SCALE_FLOOR
