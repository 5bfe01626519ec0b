"""What the returns say, in words: learning, flat, fallen, at the optimum, too early to say.

The episodes are cut into blocks of equal size, and the means of two blocks are compared by Welch's
t (the difference over its standard error): the newest with each one before it, back to the first
that it differs from. What is between them is flat, as far as can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dreamer_async.tui.draw.text import plain
from dreamer_async.tui.read.series import Array

BLOCKS = 10
"""A block is a tenth of the run: what happened of late counts, and single episodes do not."""
LEAST = 20
"""Episodes of a block: from here on Student's t is close enough to the normal distribution for
the threshold below to mean what it says."""
CERTAIN = 4.5
"""Standard errors between two blocks that differ. By chance it happens once in 7,000 comparisons of
two blocks of 20 episodes (Student's t with 38 degrees of freedom): each paint makes up to nine of
them, and each tenth that a run grows makes them new. In the tests 2,000 runs of noise around a
constant are not called anything but flat more often than in one of a hundred."""
LIKELY = 2.0
"""Standard errors of the trend of an end that is called flat, at most: once in twenty times chance
alone exceeds them. The oldest blocks of the end are left out until that holds."""
FLAT_SHARE = 0.5
"""Share of the steps so far from which on an unchanged end is called flat, and not the pause that
every curve makes between two steps."""
NEAR = 0.05
"""Share of the way from the first block to the optimum that may be missing to be there."""


@dataclass(frozen=True)
class Said:
    """A verdict."""

    kind: Literal["early", "learning", "flat", "fell", "there"]
    words: str

    @property
    def look(self) -> str:
        """How it is drawn."""
        return {"learning": "good", "there": "good", "fell": "warn"}.get(self.kind, "strong")


@dataclass(frozen=True)
class _Blocks:
    """K blocks of episodes."""

    ends: Array
    """[K] steps at the end of each."""
    means: Array
    """[K]."""
    errors: Array
    """[K] standard errors of the means."""

    def differ(self, one: int, other: int) -> bool:
        """Whether two blocks have different means, as far as chance allows to say so."""
        error = float(np.hypot(self.errors[one], self.errors[other]))
        apart = abs(float(self.means[one] - self.means[other]))
        return apart > CERTAIN * error and apart > 1e-9 * float(np.abs(self.means).max())


def verdict(steps: Array, scores: Array, optimum: float | None = None, unit: str = "steps") -> Said:
    """Say how scores [N], in the order of steps [N], go; both finite.

    `optimum` is the best return there is, where that is known; `unit` is what the steps are.
    """
    number = min(BLOCKS, len(scores) // LEAST)
    if number < 2:
        return Said("early", f"too early to say: {len(scores)} of {2 * LEAST} episodes")
    blocks = _cut(steps, scores, number)
    newest = number - 1
    first, last = float(blocks.means[0]), float(blocks.means[newest])
    if optimum is not None and last >= optimum - NEAR * max(0.0, optimum - first) > first:
        return Said("there", f"at the optimum of {plain(optimum)}")
    before = next((k for k in reversed(range(newest)) if blocks.differ(k, newest)), None)
    began = float(steps[0])
    if before is None:
        return Said("flat", f"flat for {plain(float(steps[-1]) - began)} {unit}")
    end = next((k for k in range(before, newest) if _is_level(scores, number, k + 1)), newest)
    level = float(blocks.ends[newest] - blocks.ends[end])
    if level >= FLAT_SHARE * (float(steps[-1]) - began):
        return Said("flat", f"flat for {plain(level)} {unit}")
    since = float(blocks.ends[newest] - blocks.ends[before])
    change = last - float(blocks.means[before])
    if change > 0:
        return Said("learning", f"learning: +{plain(change)} in {plain(since)} {unit}")
    return _fallen(blocks, first, unit)


def _cut(steps: Array, scores: Array, number: int) -> _Blocks:
    """Cut into blocks of equal size; the oldest episodes that are left over do not count."""
    size = len(scores) // number
    parts = scores[-number * size :].reshape(number, size)
    ends = steps[-number * size :].reshape(number, size)[:, -1]
    return _Blocks(ends, parts.mean(axis=1), parts.std(axis=1, ddof=1) / np.sqrt(size))


def _is_level(scores: Array, number: int, first: int) -> bool:
    """Whether what came from one of the blocks on has no trend that is more than likely.

    Spearman's rank correlation with time: a few episodes far above all others change nothing.
    """
    end = scores[len(scores) - (number - first) * (len(scores) // number) :]
    _, place, times = np.unique(end, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[place]  # equal scores have one rank
    if len(times) < 2:
        return True
    trend = np.corrcoef(ranks, np.arange(len(end)))[0, 1]
    return abs(float(trend)) * np.sqrt(len(end) - 1) <= LIKELY


def _fallen(blocks: _Blocks, first: float, unit: str) -> Said:
    """The best block of those that the newest one is below, and how much of its rise is lost."""
    best = int(blocks.means.argmax())
    high, last = float(blocks.means[best]), float(blocks.means[-1])
    rise = high - first
    lost = (high - last) / rise if rise > 0 else 0.0
    how = "by half" if 0.4 <= lost <= 0.6 else f"from {plain(high)} to {plain(last)}"
    return Said("fell", f"fell {how} since {plain(float(blocks.ends[best]))} {unit}")
