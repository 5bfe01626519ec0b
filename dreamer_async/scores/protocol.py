"""Scores as the paper reports them: returns of training episodes over environment frames.

No evaluation: what counts is the undiscounted return of every finished training episode, at the
frame where it ended (agent steps times the action repeat). A run's returns are averaged inside 50
equal bins of the benchmark's budget; a curve is the mean and deviation over the runs that have an
episode in the bin, beside median and range of the published runs. The score of a run that has seen
the whole budget is the mean of its bins in the budget's last tenth, and that of a task the mean
over such runs. The published curves were made in the same way. Episodes beyond the budget do not
count.

Legend: R runs, N episodes, B bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev

import numpy as np
from numpy.typing import NDArray

from dreamer_async.config import PUBLISHED, Config, ConfigError, changed, resolve
from dreamer_async.scores import curves
from dreamer_async.scores.curves import BINS, Band, Published
from dreamer_async.scores.references import ALIASES, players
from dreamer_async.store.episodes import kept
from dreamer_async.store.events import (
    Episode,
    EventReader,
    Gauges,
    PhaseChanged,
    Resumed,
    RunFinished,
    RunStarted,
)
from dreamer_async.store.run_dir import RunDir

Array = NDArray[np.float64]

LAST = BINS // 10
"""Bins of the last tenth of the budget."""
CAPPED = frozenset({"dmlab"})
"""Suites in which no task counts for more than the reference player."""
INDIFFERENT = (
    *("train.steps", "train.seed", "train.sync", "train.device", "train.precision"),
    *("train.compile", "train.backend", "train.native", "train.capture", "train.threads"),
    *("train.fused_filtering", "train.fused_imagination", "train.dependent_launch"),
    *("train.checkpoint_seconds", "train.keep_checkpoints", "train.metrics_seconds"),
    *("train.skip_limit", "train.grace_seconds", "replay.directory", "env.threads"),
)
"""Settings that are no part of a protocol."""


@dataclass(frozen=True, eq=False)
class Played:
    """The training episodes of one run."""

    name: str
    config: Config
    frames_per_step: int
    reached: float
    """Frames so far."""
    frames: Array
    """[N] where each episode ended."""
    returns: Array
    """[N]."""

    @property
    def key(self) -> tuple[str, str]:
        return self.config.env.suite, self.config.env.task


@dataclass(frozen=True)
class Bin:
    """A part of the budget."""

    frames: float
    """Its right edge."""
    runs: int
    """With an episode that ended in it."""
    episodes: int
    mean: float
    """Over runs, of the mean return of each."""
    std: float | None
    """Over runs (population); None for a single one."""
    published: Band | None
    """Median and range of the published runs."""


@dataclass(frozen=True)
class RunScore:
    """One run of a task."""

    name: str
    seed: int
    frames: float
    episodes: int
    """In the budget."""
    score: float | None
    """None before the end of the budget, and where no episode ended in its last tenth."""


@dataclass(frozen=True)
class TaskScore:
    """All runs of one task."""

    suite: str
    task: str
    frames_per_step: int
    budget: float
    """Frames."""
    runs: list[RunScore]
    bins: list[Bin]
    """Those with an episode, in order."""
    score: float | None
    """Mean over the runs that have a score."""
    score_std: float | None
    """Over those runs (population); None for a single one."""
    published: float | None
    published_seeds: int
    """0 where no curve was published."""
    normalized: float | None
    """0 is random play, 1 the reference player; where that is known."""
    published_normalized: float | None
    made_with: str
    """What has to be known of the published runs."""
    differences: list[str]
    """Settings of these runs that the published ones did not have."""

    @property
    def verdict(self) -> str:
        """ahead, on track or behind, for runs that were set up as the published ones; else empty.

        Said of the last bin that all of the runs have an episode in.
        """
        whole = [(b.mean, b.published) for b in self.bins if b.runs == len(self.runs)]
        known = [(mean, band) for mean, band in whole if band is not None]
        if self.differences or self.suite not in PUBLISHED or not known:
            return ""
        return curves.verdict(*known[-1])


@dataclass(frozen=True)
class SuiteScore:
    """Normalized scores of the tasks of a suite that have one."""

    suite: str
    tasks: int
    mean: float
    median: float
    published_mean: float | None
    """Over the same tasks."""
    published_median: float | None


def read_run(run: RunDir, config: Config) -> Played:
    """Gather the finished training episodes of a run, without those that a resume has lost.

    ConfigError if it never started.
    """
    reader, repeat, steps = EventReader(run.events_path), 0, 0
    ended: list[tuple[int, float]] = []
    while records := reader.read():
        for record in records:
            match record.event:
                case RunStarted() as event:
                    repeat = event.frames_per_step
                case Episode() as event if event.score is not None:
                    ended.append((event.env_steps, event.score))
                    steps = max(steps, event.env_steps)
                case Resumed() as event:
                    ended, steps = kept(ended, event), event.env_steps
                case Gauges() | PhaseChanged() | RunFinished() as event:
                    steps = max(steps, event.env_steps)
    if repeat < 1:
        raise ConfigError(f"{run.name} has not begun: it has no score")
    at, returns = np.array(ended, np.float64).reshape(-1, 2).T
    return Played(run.name, config, repeat, float(steps * repeat), at * repeat, returns)


def score_tasks(played: Sequence[Played]) -> list[TaskScore]:
    """Score runs task by task, in the order in which the tasks first appear."""
    tasks: dict[tuple[str, str], list[Played]] = {}
    for run in played:
        tasks.setdefault(run.key, []).append(run)
    return [_score_task(suite, task, runs) for (suite, task), runs in tasks.items()]


def _score_task(suite: str, task: str, runs: list[Played]) -> TaskScore:
    known = curves.find(suite, task)
    planned = max(run.config.train.steps * run.frames_per_step for run in runs)
    budget = float(planned) if known is None else curves.BUDGETS[suite]
    binned = [_binned(run, budget) for run in runs]  # [R] of [B]
    scores = [
        float(np.nanmean(means[-LAST:]))
        if run.reached >= budget and not np.isnan(means[-LAST:]).all()
        else None
        for run, (means, _) in zip(runs, binned, strict=True)
    ]
    rows = [
        RunScore(
            run.name, run.config.train.seed, run.reached, int((run.frames <= budget).sum()), score
        )
        for run, score in zip(runs, scores, strict=True)
    ]
    finished = [score for score in scores if score is not None]
    score = fmean(finished) if finished else None
    published = None if known is None else known.mean_after(budget * (1 - LAST / BINS))
    return TaskScore(
        suite=suite,
        task=task,
        frames_per_step=runs[0].frames_per_step,
        budget=budget,
        runs=rows,
        bins=_bins(budget, binned, known),
        score=score,
        score_std=pstdev(finished) if len(finished) > 1 else None,
        published=published,
        published_seeds=0 if known is None else known.seeds,
        normalized=normalized(suite, task, score),
        published_normalized=normalized(suite, task, published),
        made_with="" if known is None else curves.made_with(suite),
        differences=[] if known is None else _differences(suite, task, runs),
    )


def _binned(run: Played, budget: float) -> tuple[Array, NDArray[np.int64]]:
    """Mean return and number of episodes of each bin: [B] and [B]; NaN where none ended."""
    place = np.ceil(run.frames * BINS / budget).astype(np.int64) - 1
    inside = (place >= 0) & (place < BINS)
    count = np.bincount(place[inside], minlength=BINS)
    total = np.bincount(place[inside], run.returns[inside], minlength=BINS)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def _bins(
    budget: float, binned: list[tuple[Array, NDArray[np.int64]]], known: Published | None
) -> list[Bin]:
    means, counts = (np.stack(part) for part in zip(*binned, strict=True))  # [R, B] each
    bins = []
    for b in np.flatnonzero(counts.any(0)).tolist():
        here = means[:, b][counts[:, b] > 0]
        frames = budget * (b + 1) / BINS
        theirs = None if known is None else known.inside(frames)
        spread = float(here.std()) if len(here) > 1 else None
        episodes = int(counts[:, b].sum())
        bins.append(Bin(frames, len(here), episodes, float(here.mean()), spread, theirs))
    return bins


def _differences(suite: str, task: str, runs: list[Played]) -> list[str]:
    """What keeps these runs from being repetitions of the published ones, in words."""
    found: dict[str, None] = {}
    known = suite in PUBLISHED
    word = "published" if known else "preset"
    for config in (run.config for run in runs):
        if config.size != (size := curves.size_of(suite)):
            found[f"size={config.size} (published {size})"] = None
        theirs = resolve(suite, task, size=config.size, published=known)
        for key, (usual, chosen) in changed(theirs, config).items():
            if key not in INDIFFERENT:
                found[f"{key}={chosen} ({word} {usual})"] = None
    return list(found)


def normalized(suite: str, task: str, score: float | None) -> float | None:
    """Place a score between random play (0) and the reference player (1); None if unknown."""
    reference = players().get((ALIASES.get(suite, suite), curves.squashed(task)))
    if score is None or reference is None:
        return None
    low, high = reference
    return (score - low) / (high - low)


def score_suites(tasks: Sequence[TaskScore]) -> list[SuiteScore]:
    """Sum up the suites of which several tasks have a normalized score."""
    found = []
    for suite in dict.fromkeys(task.suite for task in tasks):
        scored = [t for t in tasks if t.suite == suite and t.normalized is not None]
        if len(scored) > 1:
            top = 1.0 if suite in CAPPED else math.inf
            ours = [min(top, t.normalized) for t in scored if t.normalized is not None]
            theirs = [
                min(top, t.published_normalized)
                for t in scored
                if t.published_normalized is not None
            ]
            whole = len(theirs) == len(ours)
            found.append(
                SuiteScore(
                    suite=suite,
                    tasks=len(ours),
                    mean=fmean(ours),
                    median=median(ours),
                    published_mean=fmean(theirs) if whole else None,
                    published_median=median(theirs) if whole else None,
                )
            )
    return found
