"""What is wrong or surprising about an environment, by the rows that it delivered.

`env check` says so before training, and a run repeats it once: both through `findings`.

Legend: N rows of one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import EnvSpec, ObsSpec, StepBatch, Taken

LARGE_VECTOR = 4096
"""A float vector longer than this is probably an image in disguise."""
LARGE_VALUE = 1e4
"""Values beyond this are squashed until hardly anything of them is left."""
FEW_VALUES = 32
"""Whole numbers that end below this may be symbols rather than brightness."""
FEW_EPISODES = 2
MANY_RESETS = 0.25
"""Share of reset rows from which on it is worth a word."""
INSPECTED_EPISODES = 5
"""Episodes of a run after which it says what is wrong."""
INSPECTED_ROWS = 10_000
"""Rows after which it does so at the latest."""


@dataclass
class Range:
    """What was seen of one number or array."""

    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[Any]) -> None:
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass
class Tally:
    """Everything that is counted while the environments run."""

    num_envs: int
    obs: dict[str, Range] = field(default_factory=dict)
    reward: Range = field(default_factory=Range)
    rewarded: int = 0
    rows: int = 0
    """Resets included, in which nothing was done."""
    steps: int = 0
    lengths: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    terminal: int = 0

    def __post_init__(self) -> None:
        self._length = np.zeros(self.num_envs, np.int64)
        self._return = np.zeros(self.num_envs)

    @property
    def resets(self) -> int:
        """Rows in which nothing was done."""
        return self.rows - self.steps

    def add(self, rows: StepBatch) -> None:
        """Count the rows of one batch."""
        self.rows += len(rows.env_id)
        for name, values in rows.obs.items():
            self.obs.setdefault(name, Range()).add(values)
        moved = ~rows.is_first
        self.reward.add(rows.reward[moved])
        self.rewarded += int(np.count_nonzero(rows.reward[moved]))
        self.steps += int(moved.sum())
        ids = rows.env_id
        self._length[ids] = np.where(rows.is_first, 0, self._length[ids] + 1)
        self._return[ids] = np.where(rows.is_first, 0, self._return[ids]) + rows.reward
        ended = ids[rows.is_last]
        self.lengths += self._length[ended].tolist()
        self.returns += self._return[ended].tolist()
        self.terminal += int(rows.is_terminal.sum())


class Inspection:
    """A look at the first rows of a run, which says once what is wrong with its environment."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._spec, self._begun = spec, False
        self._tally: Tally | None = Tally(num_envs)

    def add(self, rows: StepBatch) -> list[str]:
        """Count the rows of one batch; returns the findings with those that are enough.

        What needs no rows to be known comes with the first.
        """
        tally = self._tally
        if tally is None:
            return []
        known = [] if self._begun else remarks(self._spec)
        self._begun = True
        tally.add(rows)
        enough = len(tally.lengths) >= INSPECTED_EPISODES or tally.rows >= INSPECTED_ROWS
        return known + (self.finish() if enough else [])

    def finish(self) -> list[str]:
        """The findings of what was seen, if they were not returned before."""
        tally, self._tally = self._tally, None
        return findings(self._spec, tally) if tally is not None and tally.rows else []


def remarks(spec: EnvSpec) -> list[str]:
    """What the spaces alone let one doubt, and how the task was built."""
    return [*spec.remarks, *(taken.remark for taken in spec.taken.values() if taken.remark)]


def findings(spec: EnvSpec, tally: Tally) -> list[str]:
    """What is wrong or surprising, and how to mend it."""
    found = []
    for name, entry in spec.obs.items():
        found += _wrong_with(name, entry, tally.obs[name])
        found += _symbols(entry, tally.obs[name], spec.taken.get(name))
        found += _outside(name, tally.obs[name], spec.bounds.get(name))
    return [*found, *_wrong_with_episodes(tally), *_many_resets(tally), *_wrong_with_rewards(tally)]


def _many_resets(tally: Tally) -> list[str]:
    """Say where much of a budget of steps goes into rows in which nothing is decided."""
    share = tally.resets / max(1, tally.rows)
    if share < MANY_RESETS:
        return []
    return [
        f"{share:.0%} of all agent steps are reset rows, which count (as in the official code) "
        "though nothing is decided in them: give more steps"
    ]


def _wrong_with_rewards(tally: Tally) -> list[str]:
    """What is wrong with rewards."""
    reward, found = tally.reward, []
    if not tally.steps:
        return []
    if not tally.rewarded:
        found.append(
            f"play never saw a reward in {tally.steps} steps: expect a long time without progress"
        )
    elif tally.rewarded == tally.steps and reward.low == reward.high:
        found.append(
            f"every step had the same reward, {reward.low:g}: only the lengths of episodes matter"
        )
    if max(abs(reward.low), abs(reward.high)) > LARGE_VALUE:
        found.append(f"rewards reach {reward.low:g} to {reward.high:g}: scale them down")
    return found


def _wrong_with(name: str, entry: ObsSpec, seen: Range) -> list[str]:
    """What is wrong with an observation key, and how to mend it."""
    found = []
    if seen.low == seen.high:
        found.append(f"{name} was {seen.low:g} all the time: leave it out, or is it broken?")
    elif entry.dtype == "uint8" and seen.high <= 1:
        found.append(
            f"the image {name} holds nothing but 0 and 1: multiply by 255 before converting it"
        )
    if entry.dtype == "float32" and max(abs(seen.low), abs(seen.high)) > LARGE_VALUE:
        found.append(f"{name} reaches {seen.low:g} to {seen.high:g}: scale it to about 1")
    if entry.classes > LARGE_VECTOR:
        found.append(
            f"{name} has {entry.classes:,} classes, each one input of an MLP: if near ones are "
            "alike, declare it as a Box of numbers, or say --as KEY=vector"
        )
    if entry.dtype == "float32" and entry.shape[0] > LARGE_VECTOR:
        found.append(
            f"{name} is a vector of {entry.shape[0]} numbers for an MLP: if it is an image, "
            "declare it as a uint8 Box of [height, width, channels], or say so with --as KEY=image"
        )
    return found


def _symbols(entry: ObsSpec, seen: Range, taken: Taken | None) -> list[str]:
    """Doubt that bytes are brightness that never are more than a few, whatever their space says."""
    doubted = taken is not None and (taken.chosen or taken.remark)
    if taken is None or doubted or entry.dtype != "uint8" or not 1 < seen.high < FEW_VALUES:
        return []
    return [
        f"the image {taken.key} holds no number above {seen.high:g}: if they are symbols, such as "
        f"kinds of tiles, --as {taken.key}=category:{seen.high + 1:g} (or more) makes categories "
        f"of them (--as {taken.key}=image if not)"
    ]


def _outside(name: str, seen: Range, bounds: tuple[float, float] | None) -> list[str]:
    """Say where an environment does not keep to the bounds of its own space."""
    if bounds is None or not seen.count:
        return []
    low, high = bounds
    slack = 1e-5 * max([1.0, *(abs(bound) for bound in bounds if math.isfinite(bound))])
    if low - slack <= seen.low and seen.high <= high + slack:
        return []
    return [
        f"{name} reaches {seen.low:g} to {seen.high:g}, but its space says {low:g} to {high:g}: "
        "correct one of the two (nothing is clipped)"
    ]


def _wrong_with_episodes(tally: Tally) -> list[str]:
    """What is wrong with where episodes end, and how to mend it."""
    if not tally.lengths:
        return [
            f"no episode ended in {tally.steps} steps: if none ever does, no score is reported; "
            "give it a time limit (gymnasium.wrappers.TimeLimit)"
        ]
    if min(tally.lengths) < FEW_EPISODES:
        return [
            "an episode ended after one step: fine where there is one decision, "
            "else reset may leave the environment finished"
        ]
    if not tally.terminal and len(tally.lengths) >= FEW_EPISODES:
        return ["no episode was terminal: a time limit does not count as the end of the task"]
    return []
