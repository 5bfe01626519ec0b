"""Where a run stands: its phase, how fast it moves, and when it will be done."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from dreamer_async.tui.read.view import RunView

Counter = Literal["env_steps", "updates"]

RATE_SECONDS = 10.0
"""A rate is a mean over at least this long."""
RATE_CHANGES = 10
"""It goes back until the counter grew in this many gauges events: slow runs have calm rates too."""
RATE_LONGEST = 120.0
"""But not over more seconds than this."""
ETA_SECONDS = 30.0
"""Like RATE_SECONDS, for the end in sight."""


@dataclass(frozen=True)
class Trainer:
    """What this process knows about the trainer besides its events."""

    alive: bool | None = None
    """Somebody holds the run's lock; None while that is not known yet."""
    since: float = 0.0
    """Unix seconds at which it was taken; 0 where nobody says."""
    stop_requested_at: float | None = None
    """Unix seconds at which this dashboard asked for a stop."""


@dataclass(frozen=True)
class Phase:
    """The word on the chip, and since when (unix seconds; 0 means without a timer)."""

    name: str
    since: float = 0.0


_BEFORE_TRAINING = ("starting", "compiling", "prefill")
"""Phases of a start; of a run that is continued they are parts of resuming it."""


def phase(view: RunView, trainer: Trainer) -> Phase:
    """Say what the run is doing, in one word."""
    if trainer.alive and view.records and trainer.since > view.last_time:
        return Phase("resuming", trainer.since)  # a trainer of which nothing was heard yet
    if view.finished is not None:
        return Phase("failed" if view.finished.reason == "failed" else "finished")
    if trainer.alive is False:
        return Phase("lost", view.last_time)
    if trainer.stop_requested_at is not None:
        return Phase("stopping", trainer.stop_requested_at)
    if not view.phase:
        return Phase("waiting")
    if view.generation > 0 and view.phase in _BEFORE_TRAINING:
        return Phase("resuming", view.started_at)
    return Phase(view.phase, 0.0 if view.phase == "training" else view.phase_since)


def rate(view: RunView, counter: Counter, least: float = RATE_SECONDS) -> float | None:
    """Growth of a counter per second of late, within the phase that is on; None before two reports.

    `least` is the shortest time in seconds that is averaged, where there is as much.
    """
    if not view.recent:
        return None
    newest = view.recent[-1]
    start, changes = newest, 0
    for later, earlier in pairwise(reversed(view.recent)):
        elapsed = newest.ran - start.ran
        enough = elapsed >= least and changes >= RATE_CHANGES
        if earlier.phase != newest.phase or enough or elapsed >= RATE_LONGEST:
            break
        changes += getattr(later, counter) != getattr(earlier, counter)
        start = earlier
    elapsed = newest.ran - start.ran
    if elapsed <= 0:
        return None
    return max(0.0, (getattr(newest, counter) - getattr(start, counter)) / elapsed)


class Goal(NamedTuple):
    """What ends a run by itself."""

    done: int
    planned: int
    """0 where that is not known yet."""
    unit: str
    """steps or updates."""


def goal(view: RunView) -> Goal:
    """How far a run is: in updates if it learns from what was recorded, else in agent steps."""
    if view.started is not None and view.started.updates > 0:
        return Goal(view.updates, view.started.updates, "updates")
    return Goal(view.env_steps, view.started.steps if view.started else 0, "steps")


def eta_seconds(view: RunView) -> float | None:
    """Estimate the seconds until the end is reached; only training is as fast as that."""
    if view.started is None or view.finished is not None or view.phase != "training":
        return None
    done, planned, unit = goal(view)
    speed = rate(view, "updates" if unit == "updates" else "env_steps", ETA_SECONDS)
    left = max(0, planned - done)
    return left / speed if speed else None
