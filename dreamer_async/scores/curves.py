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

Array = NDArray[np.float64]

FILE = Path(__file__).parent / "data" / "published.csv"
BINS = 50
"""Equal parts of the budget that a benchmark gives; the curves have a point for each."""
SIZE = "size200m"
"""Size of the published runs, but for those in `SIZES`."""
SIZES: Mapping[str, str] = MappingProxyType({"dmc-proprio": "size12m", "dmc-vision": "size12m"})
"""As the official configuration had it when the scores were published (2411f7d, April 2024)."""
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
TRAIN_RATIOS: Mapping[str, float] = MappingProxyType({"atari": 32.0, "atari100k": 256.0})
"""Suites whose published protocol is ours, with the train ratio they were run with."""


@dataclass(frozen=True, eq=False)
class Published:
    """One curve, over environment frames."""

    frames: Array
    """[N] right edges of the bins."""
    mean: Array
    """[N] mean score over the seeds."""
    std: Array
    """[N] standard deviation over the seeds."""
    seeds: int
    """Most seeds in one bin."""

    def at(self, frames: float) -> tuple[float, float] | None:
        """Mean and deviation at a number of frames; None outside the curve."""
        if not self.frames[0] <= frames <= self.frames[-1]:
            return None
        mean, std = (np.interp(frames, self.frames, y) for y in (self.mean, self.std))
        return float(mean), float(std)

    def inside(self, frames: float) -> tuple[float, float] | None:
        """Mean and deviation of the bin with this right edge; None where no seed had an episode."""
        found = np.flatnonzero(np.isclose(self.frames, frames))
        return (float(self.mean[found[0]]), float(self.std[found[0]])) if found.size else None

    def mean_after(self, frames: float) -> float | None:
        """Mean of the bins whose left edge is this number of frames or larger."""
        kept = self.mean[self.frames > frames * (1 + 1e-9)]
        return float(kept.mean()) if kept.size else None

    def until(self, frames: float) -> Published:
        """The part up to a number of frames, which may be empty."""
        kept = self.frames <= frames
        here = self.at(frames)
        x, mean, std = (part[kept] for part in (self.frames, self.mean, self.std))
        if here is not None and (not len(x) or x[-1] < frames):
            x, mean, std = (
                np.append(part, value)
                for part, value in zip((x, mean, std), (frames, *here), strict=True)
            )
        return Published(x, mean, std, self.seeds)


@lru_cache(maxsize=8)
def find(suite: str, task: str) -> Published | None:
    """The curve of a task, None if none was published."""
    wanted = squashed(task)
    rows = [numbers for name, *numbers in _lines(suite) if squashed(name) == wanted]
    if not rows:
        return None
    frames, mean, std, seeds = np.array(rows, np.float64).T
    return Published(frames, mean, std, int(seeds.max()))


def _lines(suite: str) -> list[list[str]]:
    """Columns of a suite's points, the suite itself left out."""
    text, mark = FILE.read_text(encoding="utf-8"), f"\n{suite},"
    start = text.find(mark) + 1  # the lines of a suite stand together
    end = text.find("\n", text.rfind(mark) + 1)
    return [columns for _, *columns in csv.reader(text[start:end].split("\n"))] if start else []


def comparable(suite: str, size: str, train_ratio: float) -> bool:
    """Tell whether a run was set up as the published ones were."""
    return size == size_of(suite) and TRAIN_RATIOS.get(suite) == train_ratio


def size_of(suite: str) -> str:
    """Size of the published runs of a suite."""
    return SIZES.get(suite, SIZE)


def made_with(suite: str) -> str:
    """What a reader has to know of how the published runs of a suite were made."""
    return f"{size_of(suite)}, action repeat 2" if suite.startswith("dmc-") else size_of(suite)


def verdict(score: float, mean: float, std: float) -> str:
    """Place a score against the published ones at the same number of frames."""
    if score > mean + std:
        return "ahead"
    return "behind" if score < mean - std else "on track"


def squashed(task: str) -> str:
    return task.replace("_", "").replace("-", "").lower()
