"""Scores of many runs in a few numbers, with how far they may be trusted.

As in Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021), and their package rliable: interquartile mean, median and mean of normalized scores
with stratified bootstrap intervals of 95 %, and the share of runs above each score.

Legend: R runs of each task, N tasks, K bootstrap samples, T thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamer_async.scores.bands import ENDS
from dreamer_async.scores.protocol import CAPPED, TaskScore, normalized

Array = NDArray[np.float64]

SAMPLES = 10_000
PROFILE_SAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, which a single run of each task has not."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Aggregate:
    """Runs of one kind over the tasks of a suite."""

    suite: str
    tasks: int
    runs: int
    """Of each task."""
    left_out: int
    """Runs that are complete and do not count, as other tasks have fewer."""
    iqm: Estimate
    median: Estimate
    """Over tasks, of the mean of each."""
    mean: Estimate


@dataclass(frozen=True, eq=False)
class Profile:
    """How large a share of runs scores above each threshold."""

    thresholds: Array
    """[T]."""
    share: Array
    """[T]."""
    low: Array
    """[T] of the interval; equal to `share` for a single run of each task."""
    high: Array


def iqm(scores: Array) -> Array:
    """Mean of the middle half of all R N scores: [..., R, N] -> [...].

    A quarter of them, rounded down, is cut off at each end.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def median(scores: Array) -> Array:
    """Median over tasks of the mean over runs: [..., R, N] -> [...]."""
    return np.median(scores.mean(axis=-2), axis=-1)


def mean(scores: Array) -> Array:
    """Mean over tasks of the mean over runs: [..., R, N] -> [...]."""
    return scores.mean(axis=(-2, -1))


def resampled(scores: Array, count: int, generator: np.random.Generator) -> Array:
    """Draw R runs of each task with replacement, each task by itself: [R, N] -> [K, R, N]."""
    runs, tasks = scores.shape
    chosen = generator.integers(runs, size=(count, runs, tasks))
    return scores[chosen, np.arange(tasks)]


def estimate(statistic: Callable[[Array], Array], scores: Array, *, seed: int = 0) -> Estimate:
    """A statistic of scores [R, N] and its interval of percentiles."""
    value = float(statistic(scores))
    if len(scores) < 2:
        return Estimate(value, None, None)
    spread = statistic(resampled(scores, SAMPLES, np.random.default_rng(seed)))
    low, high = np.quantile(spread, ENDS)
    return Estimate(value, float(low), float(high))


def profile(scores: Array, thresholds: Array, *, seed: int = 0) -> Profile:
    """The share of all R N runs above each threshold, [R, N] and [T] -> [T]."""
    share = _above(scores, thresholds)
    if len(scores) < 2:
        return Profile(thresholds, share, share, share)
    drawn = resampled(scores, PROFILE_SAMPLES, np.random.default_rng(seed))
    spread = np.stack([_above(each, thresholds) for each in drawn])  # [K, T]
    low, high = np.quantile(spread, ENDS, axis=0)
    return Profile(thresholds, share, low, high)


def _above(scores: Array, thresholds: Array) -> Array:
    flat = np.sort(scores, axis=None)
    return 1 - np.searchsorted(flat, thresholds, side="right") / flat.size


# -- of runs ---------------------------------------------------------------------------------


def table(tasks: Sequence[TaskScore]) -> tuple[Array, int]:
    """Normalized scores of complete runs, [R, N], and how many had to be left out.

    Tasks without one, or without a reference, are no part of it. R is the smallest number of runs
    that a task has: one with more of them would count for more.
    """
    columns = [column for task in tasks if (column := _column(task))]
    if not columns:
        return np.empty((0, 0)), 0
    fewest = min(map(len, columns))
    scores = np.array([column[:fewest] for column in columns]).T
    return scores, sum(map(len, columns)) - scores.size


def _column(task: TaskScore) -> list[float]:
    top = 1.0 if task.suite in CAPPED else np.inf
    ordered = sorted(task.runs, key=lambda run: run.seed)
    scores = [normalized(task.suite, task.task, run.score) for run in ordered]
    return [min(top, score) for score in scores if score is not None]


def aggregate(tasks: Sequence[TaskScore]) -> list[Aggregate]:
    """Sum up each suite of which runs have a normalized score."""
    found = []
    for suite in dict.fromkeys(task.suite for task in tasks):
        scores, left_out = table([task for task in tasks if task.suite == suite])
        if scores.size:
            numbers = (estimate(each, scores) for each in (iqm, median, mean))
            found.append(Aggregate(suite, scores.shape[1], scores.shape[0], left_out, *numbers))
    return found
