"""Timed calls and what they say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

LEAST = 3
"""Calls that are timed however long they take."""


@dataclass(frozen=True)
class Timing:
    """How long one thing took, over several times; all in seconds."""

    part: str
    """ceilings, learner, policy, replay, env, pipeline, dashboard or scaling."""
    what: str
    """What was timed, for people."""
    unit: str
    """What one time belongs to, such as s/update."""
    median_s: float
    min_s: float
    max_s: float
    n: int
    """How many times."""
    detail: Mapping[str, float] = field(default_factory=dict[str, float])
    """Other numbers, by name."""


def timing(part: str, what: str, unit: str, times: Sequence[float], **detail: float) -> Timing:
    """Sum up times in seconds."""
    middle = statistics.median(times)
    return Timing(part, what, unit, middle, min(times), max(times), len(times), detail)


def timed(
    action: Callable[[], object],
    seconds: float,
    wait: Callable[[], object] = lambda: None,
) -> list[float]:
    """Seconds of each call, for about `seconds` in all, after one call that does not count.

    `wait` returns when the work of a call is done; GPUs need it.
    """
    action()
    wait()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < end:
        began = time.perf_counter()
        action()
        wait()
        times.append(time.perf_counter() - began)
    return times


def timed_in_turn(
    actions: Mapping[str, Callable[[], object]], seconds: float
) -> dict[str, list[float]]:
    """Seconds of each call of each action, one after the other, so that all see the same machine.

    Takes about `seconds` in all, after one call of each that does not count.
    """
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < LEAST or time.perf_counter() < end:
        rounds += 1
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - began)
    return times
