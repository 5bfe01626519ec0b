"""What a person should know now: conditions that hold at this moment, and the newest warning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dreamer_async.tui.draw.picture import Entry
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import count, duration, plural, size
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.view import Alert, RunView
from dreamer_async.tui.show.names import label

DISK_LOW_GB, DISK_FULL_GB = 10.0, 2.0
SILENT_SECONDS = 30.0
"""A trainer that trains says something every second."""
STALLED_SECONDS = 60.0
INFO_SECONDS = 120.0
"""How long a message that is no warning stays on the line."""
S_ONCE_ABOVE = 2.0
"""A return scale that was this many times its floor had left it."""
_COMMAND = re.compile(r"`([^`]+)`")
_LOOKS = {"error": "bad", "warning": "warn"}


class Alarm(NamedTuple):
    """A condition that holds now."""

    level: str
    """error or warning."""
    text: str


def standing(view: RunView, phase: Phase, now: float) -> list[Alarm]:
    """Every condition that holds, errors first; `now` is unix seconds."""
    if phase.name in ("lost", "finished", "failed", "waiting"):
        return []
    found = [*_disk(view), *_silent(view, phase, now), *_stalled(view, phase), *_scale(view)]
    return sorted(found, key=lambda alarm: alarm.level)


def _disk(view: RunView) -> Iterator[Alarm]:
    free = view.gauges.get("disk/free_gb")
    if free is not None and free < DISK_LOW_GB:
        level = "error" if free < DISK_FULL_GB else "warning"
        yield Alarm(level, f"disk nearly full: {size(free * 1e9)} left")


def _silent(view: RunView, phase: Phase, now: float) -> Iterator[Alarm]:
    silence = now - view.last_time
    if phase.name in ("training", "prefill", "paused") and silence > SILENT_SECONDS:
        yield Alarm("warning", f"no news from the trainer for {duration(silence)}")


def _stalled(view: RunView, phase: Phase) -> Iterator[Alarm]:
    """Nothing moved for a while, and where it hangs."""
    if phase.name != "training" or not view.recent:
        return
    newest = view.recent[-1]
    past = [r for r in view.recent if newest.ran - r.ran <= STALLED_SECONDS]
    long = newest.ran - past[0].ran >= 0.8 * STALLED_SECONDS
    moved = any(
        (r.values.get("rate/updates") or 0) > 0 or (r.values.get("rate/env_steps") or 0) > 0
        for r in past
    )
    if long and not moved:
        stages = {n: v for n, v in newest.values.items() if n.startswith("stage/") and v}
        where = max(stages, key=lambda name: stages[name] or 0.0, default="")
        hint = f", most of it in {label(where)}" if where else ""
        yield Alarm("warning", f"stalled: no step and no update for a minute{hint}")


def _scale(view: RunView) -> Iterator[Alarm]:
    """S fell back to its floor after it had left it."""
    series, floor = view.metrics.get("return/S"), view.limits.return_floor
    if series is not None and view.at_floor and float(series.high.max()) > S_ONCE_ABOVE * floor:
        yield Alarm("warning", f"the return scale S collapsed to its floor of {floor:g}")


# -- the line ----------------------------------------------------------------------------------


def line(view: RunView, phase: Phase, now: float, name: str) -> Entry:
    """The one thing a person should know now; where there is less room, the command in it alone.

    `name` is what the run is called now, which need not be what it was called at its start.
    """
    row = _line(view, phase, now, name)
    commands = [command for part in row for command in _COMMAND.findall(part.text)]
    return [row, [row[0], Part(commands[0])]] if commands else [row]


def _line(view: RunView, phase: Phase, now: float, name: str) -> Row:
    if phase.name == "lost":
        return [Part("▲ lost  ", "bad"), Part(_lost_hint(view, name))]
    if view.finished is not None and phase.name == "finished":
        said = view.finished.message or view.finished.reason
        return [Part("● finished  ", "good"), Part(f"{said} at step {count(view.env_steps)}")]
    alarms = standing(view, phase, now)
    if alarms:
        first, more = alarms[0], len(alarms) - 1
        row = [Part(f"▲ {first.level} ", _LOOKS[first.level]), Part(first.text)]
        return [*row, Part(f"  and {more} more", "dim")] if more else row
    newest = _newest(view, now)
    if newest is None:
        return [Part("no warnings", "dim")]  # older ones are in the log
    age = duration(now - newest.time)
    return [
        Part(f"▲ {newest.level} ", _LOOKS.get(newest.level, "accent")),
        Part(f"{age} ago  ", "dim"),
        Part(newest.message),
    ]


def _newest(view: RunView, now: float) -> Alert | None:
    """The newest warning since the trainer began; for a while also what is only worth knowing."""
    for alert in reversed(view.alerts):
        if alert.time < view.started_at:
            return None
        if alert.level != "info" or now - alert.time < INFO_SECONDS:
            return alert
    return None


def safety(view: RunView, now: float) -> Row:
    """What was skipped and what is saved."""
    row: list[Part] = []
    skipped = view.gauges.get("opt/skipped")
    if skipped:
        row.append(Part(f"{plural(skipped, 'NaN update')} skipped  ", "bad"))
    if view.checkpoint is None:
        return [*row, Part("no checkpoint yet", "dim")]
    age = duration(now - view.checkpoint_at)
    return [*row, Part(f"saved {age} ago ({size(view.checkpoint.bytes)})", "dim")]


def _lost_hint(view: RunView, name: str) -> str:
    if view.started is None:
        return "no trainer is running"
    return f"the trainer has ended unexpectedly; `dreamer-async resume {name}` continues"
