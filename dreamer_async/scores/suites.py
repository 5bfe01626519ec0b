"""Scores of a benchmark's own kind, from what environments log at the end of each episode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer_async import envs
from dreamer_async.config import ConfigError
from dreamer_async.scores.runs import names_of
from dreamer_async.store.episodes import read_episodes
from dreamer_async.store.events import Episode, Metrics

if TYPE_CHECKING:
    from dreamer_async.store.run_dir import RunDir

PREFIX = "suite/"
"""In front of these scores among the metrics."""
SECONDS = 30.0
"""Least time between two events."""


class SuiteScores:
    """Sums up the finished episodes of a run."""

    def __init__(self, suite: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._suite, self._clock = suite, clock
        self._logs: list[Mapping[str, float]] = []
        self._next = clock()

    def recall(self, events: Path, env_steps: int) -> None:
        """Take in those of earlier processes of a run that goes on at a step."""
        if not envs.has_scores(self._suite):
            return  # a stream may have gigabytes
        for each in read_episodes(events):
            if each.log and each.env_steps <= env_steps and not beyond(self._suite, each):
                self._logs.append(numbers(each.log))

    def add(self, episode: Episode, updates: int) -> Metrics | None:
        """Take in an episode; return the scores so far, now and then, if the suite has any."""
        if not episode.log or beyond(self._suite, episode):
            return None
        self._logs.append(numbers(episode.log))
        if self._clock() < self._next:
            return None
        self._next = self._clock() + SECONDS
        scores = envs.summarize(self._suite, self._logs)
        named = {PREFIX + name: value for name, value in scores.items()}
        return Metrics(updates, episode.env_steps, named) if named else None


def beyond(suite: str, episode: Episode) -> bool:
    """Whether an episode ended after the steps by which the benchmark scores a run."""
    steps = envs.scored_steps(suite)
    return bool(steps) and episode.env_steps > steps


def numbers(log: Mapping[str, float | None]) -> dict[str, float]:
    """Logged values without those that were not finite."""
    return {name: value for name, value in log.items() if value is not None}


def official_scores(runs: Sequence[tuple[RunDir, str, str]]) -> dict[str, Any]:
    """The benchmark's own score over all episodes of runs: run directory, suite and task of each.

    A run that is given twice counts once. Raises ConfigError where that cannot be said.
    """
    suites = {suite for _, suite, _ in runs}
    if len(suites) > 1:
        raise ConfigError(f"runs of one suite have a score together, these are of {sorted(suites)}")
    logs = {run: (task, _logs(run, suite)) for run, suite, task in runs}
    if empty := [run for run, (_, log) in logs.items() if not log]:
        (name,) = names_of(empty[:1])
        raise ConfigError(f"no finished episode of {name} has logged values for a score")
    suite = suites.pop()
    if suite == "bsuite":
        return _bsuite(list(logs.values()))
    together = [log for _, several in logs.values() for log in several]
    scores = envs.summarize(suite, together)
    if not scores:
        raise ConfigError(f"{suite} has no score besides the returns of its episodes")
    return {"episodes": len(together), **scores}


def _logs(run: RunDir, suite: str) -> list[dict[str, float]]:
    """What the episodes have logged that count, and are a part of the run still."""
    episodes = read_episodes(run.events_path)
    return [numbers(each.log) for each in episodes if each.log and not beyond(suite, each)]


def _bsuite(runs: Sequence[tuple[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Score experiments with bsuite's own analysis."""
    if lacking := envs.missing("bsuite"):
        raise ConfigError(lacking[0])
    from dreamer_async.envs.suites.bsuite import score

    return {"experiments": score(runs)}
