"""`reduce`: fold one record into what is known about a run (`RunView`).

All meaning of the dashboard lives here and nothing of Textual: a view that is rebuilt from the
file equals the one that watched the file grow. Every text that came from the file is clean
(`text.clean`) before it enters the view, and every number is finite.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, TypeVar

from dreamer_async.store.events import (
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
from dreamer_async.store.sizes import in_words
from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.read.series import Series
from dreamer_async.tui.read.view import Alert, EpisodeRow, Evaluation, LogLine, Recent, RunView

MAX_NAMES = 400
"""Distinct metric names that are kept; a broken writer cannot fill the memory."""
_HUGE = 1e100
"""Larger numbers are cut to this."""

Entry = TypeVar("Entry", EpisodeRow, Evaluation)
Kept = TypeVar("Kept", RunStarted, Checkpointed, Resumed, Controlled, RunFinished)


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
            _episode(view, event, record.time, record.generation)
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
    return max(-_HUGE, min(_HUGE, real)) if math.isfinite(real) else None


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
        known = view.metrics.get(name)
        if known is not None and type(raw) is float and -_HUGE <= raw <= _HUGE:  # nearly all
            view.latest[name] = raw
            known.append(x, raw, update, ran)
            continue
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
        if name in view.gauges and type(raw) is float and -_HUGE <= raw <= _HUGE:  # nearly all
            view.gauges[name] = raw
            continue
        key = _name(name)
        if key in view.gauges or len(view.gauges) < MAX_NAMES:
            view.gauges[key] = number(raw)
    view.recent.append(
        Recent(view.clock.ran, view.phase, view.env_steps, view.updates, dict(view.gauges))
    )


def _episode(view: RunView, event: Episode, time: float, generation: int) -> None:
    score, steps = number(event.score), max(0, _whole(event.env_steps))
    if generation < view.generation and steps > view.resumed_steps:
        return
    view.episode_count += 1
    view.last_length = _whole(event.length)
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
    steps, updates = max(0, _whole(event.env_steps)), _whole(event.updates)
    done = Evaluation(time, steps, updates, scores, view.clock.ran)
    view.evaluations.append(done)
    text = f"evaluated update {done.updates:,}: mean {done.mean:.4g} of {len(scores)} episodes"
    _say(view, "info", text, time)


def _checkpointed(view: RunView, event: Checkpointed, time: float) -> None:
    view.checkpoint, view.checkpoint_at = event, time
    text = f"saved {event.path} ({in_words(event.bytes)} in {event.seconds:.1f} s)"
    _say(view, "info", text, time)


def _say(view: RunView, level: str, text: str, time: float) -> None:
    view.log.append(LogLine(level, text, time))


def _progress(view: RunView, env_steps: object, updates: object) -> None:
    view.env_steps = max(0, _whole(env_steps))
    view.updates = max(0, _whole(updates))


def _phase(view: RunView, phase: str, time: float) -> None:
    name = clean(phase, 12).lower()
    if name != view.phase:
        view.phase, view.phase_since = name, time
        _say(view, "info", f"{name} at step {view.env_steps:,}, update {view.updates:,}", time)


def _started(view: RunView, event: RunStarted, time: float) -> None:
    view.started, view.started_at, view.finished = event, time, None
    view.gauges.clear()
    view.recent.clear()
    view.gauges_seen += 1
    _phase(view, "starting", time)


def _resumed(view: RunView, event: Resumed, time: float) -> None:
    view.resumed = event
    view.resumed_update, view.resumed_steps = _whole(event.updates), _whole(event.env_steps)
    view.metrics_seen += 1
    for series in view.metrics.values():
        series.cut(view.resumed_update)
    view.latest = {name: series.last for name, series in view.metrics.items() if len(series)}
    _forget_episodes(view)
    _progress(view, event.env_steps, event.updates)
    source = event.checkpoint or "no checkpoint"
    text = f"resumed from {source} at step {event.env_steps:,}, update {event.updates:,}"
    _say(view, "info", text, time)
    for skipped in event.skipped:
        _alert(view, "warning", f"checkpoint skipped: {clean(skipped, 400)}", time)


def _forget_episodes(view: RunView) -> None:
    """Forget what was played after the place where a resume went on, as `episodes.kept` does."""
    steps, updates = view.resumed_steps, view.resumed_update
    for series in (view.episodes, view.lengths):
        series.cut(steps, "steps")
        series.hold_updates(updates)
    recorded = view.started is not None and view.started.updates > 0
    _keep(view.evaluations, lambda e: e.updates <= updates and (recorded or e.env_steps <= steps))
    if _keep(view.rows, lambda row: row.env_steps <= steps):
        view.episode_count = view.rows[-1].number if view.rows else view.lengths.points
        view.last_length = view.rows[-1].length if view.rows else int(view.lengths.last or 0)
        view.best_score = float(view.episodes.high.max()) if len(view.episodes) else None


def _keep(kept: deque[Entry], wanted: Callable[[Entry], bool]) -> bool:
    """Drop what is not wanted; tells whether there was anything to drop."""
    before, entries = len(kept), [entry for entry in kept if wanted(entry)]
    kept.clear()
    kept.extend(entries)
    return len(kept) < before


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
