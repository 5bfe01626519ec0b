"""Published learning curves, to compare one's own with."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dreamer_async.config import PUBLISHED, resolve

Array = NDArray[np.float64]

FILE = Path(__file__).parent / "data" / "published.csv"
BINS = 50
"""Equal parts of the budget that a benchmark gives; the curves have a point for each."""
SIZE = "size200m"
"""Size of the published runs of suites whose protocol here is another."""
BUDGETS: Mapping[str, float] = MappingProxyType(
    {
        "atari": 2e8,
        "atari100k": 4e5,
        "dmc-proprio": 5e5,
        "dmc-vision": 1e6,
        "dmlab": 1e8,
        "procgen": 5e7,
    }
)
"""Environment frames that the benchmarks with published curves give."""


@dataclass(frozen=True)
class Band:
    """The published runs at one number of frames."""

    median: float
    low: float
    """The worst seed."""
    high: float
    """The best seed."""


@dataclass(frozen=True, eq=False)
class Published:
    """One curve, over environment frames."""

    frames: Array
    """[N] right edges of the bins."""
    mean: Array
    """[N] mean score over the seeds."""
    median: Array
    """[N] median over the seeds."""
    low: Array
    """[N] the worst seed."""
    high: Array
    """[N] the best seed."""
    seeds: int
    """Most seeds in one bin."""

    def at(self, frames: float) -> Band | None:
        """Median and range at a number of frames; None outside the curve."""
        if not self.frames[0] <= frames <= self.frames[-1]:
            return None
        return Band(*(float(np.interp(frames, self.frames, y)) for y in self._band))

    def inside(self, frames: float) -> Band | None:
        """Median and range of the bin with this right edge; None where no seed had an episode."""
        found = np.flatnonzero(np.isclose(self.frames, frames))
        return Band(*(float(y[found[0]]) for y in self._band)) if found.size else None

    def mean_after(self, frames: float) -> float | None:
        """Mean of the bins whose left edge is this number of frames or larger."""
        kept = self.mean[self.frames > frames * (1 + 1e-9)]
        return float(kept.mean()) if kept.size else None

    def until(self, frames: float) -> Published:
        """The part up to a number of frames, which may be empty."""
        kept = self.frames <= frames
        columns = [part[kept] for part in (self.frames, self.mean, *self._band)]
        here = self.at(frames)
        if here is not None and (not kept.any() or columns[0][-1] < frames):
            mean = float(np.interp(frames, self.frames, self.mean))
            last = (frames, mean, here.median, here.low, here.high)
            columns = [np.append(part, x) for part, x in zip(columns, last, strict=True)]
        return Published(*columns, seeds=self.seeds)

    @property
    def _band(self) -> tuple[Array, Array, Array]:
        return self.median, self.low, self.high


@lru_cache(maxsize=8)
def find(suite: str, task: str) -> Published | None:
    """The curve of a task, None if none was published."""
    wanted = squashed(task)
    rows = [numbers for name, *numbers in _lines(suite) if squashed(name) == wanted]
    if not rows:
        return None
    *columns, seeds = np.array(rows, np.float64).T
    return Published(*columns, seeds=int(seeds.max()))


def _lines(suite: str) -> list[list[str]]:
    """Columns of a suite's points, the suite itself left out."""
    text, mark = FILE.read_text(encoding="utf-8"), f"\n{suite},"
    start = text.find(mark) + 1  # the lines of a suite stand together
    end = text.find("\n", text.rfind(mark) + 1)
    return [columns for _, *columns in csv.reader(text[start:end].split("\n"))] if start else []


def comparable(suite: str, size: str, train_ratio: float, frames_per_step: int) -> bool:
    """Tell whether a run was set up as the published ones were, as far as it is known by these."""
    if suite not in PUBLISHED:
        return False
    same = resolve(suite, "any", published=True)
    repeats = same.env.repeat in (
        1,
        frames_per_step,
    )  # 1 where the protocol has a repeat of its own
    return repeats and (size, train_ratio) == (same.size, same.train.train_ratio)


def size_of(suite: str) -> str:
    """Size of the published runs of a suite."""
    return str(PUBLISHED[suite]["size"]) if suite in PUBLISHED else SIZE


def made_with(suite: str) -> str:
    """What a reader has to know of how the published runs of a suite were made."""
    repeat = PUBLISHED.get(suite, {}).get("env.repeat")
    return size_of(suite) + (f", action repeat {repeat}" if repeat else "")


def verdict(score: float, band: Band) -> str:
    """Place a score against the published seeds at the same number of frames."""
    if score > band.high:
        return "ahead"
    return "behind" if score < band.low else "on track"


def squashed(task: str) -> str:
    return task.replace("_", "").replace("-", "").lower()
