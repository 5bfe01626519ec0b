"""A curve that can grow for weeks: bounded memory, extremes kept, means honest.

Legend: N buckets in use.
"""

from __future__ import annotations

from array import array
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axis = Literal["steps", "updates", "time"]

_STEPS, _UPDATE, _TIME, _LOW, _HIGH, _MEAN = range(6)
_FRESH = 4096
"""Points that wait to be stored together: a history of a million is read in half the time."""
_AXES: dict[Axis, int] = {"steps": _STEPS, "updates": _UPDATE, "time": _TIME}


class Series:
    """Points of a run, merged pairwise into buckets once there are too many.

    A bucket covers `stride` consecutive points and knows where it ends (environment steps,
    update, seconds of running), its minimum, maximum and mean. What the series holds depends on
    the points alone and not on when they came, so that a re-read file gives the same series as
    one that was watched.
    """

    def __init__(self, limit: int = 16_384) -> None:
        assert limit >= 2 and limit % 2 == 0, limit
        self.limit = limit
        self._stride = 1
        self.last: float | None = None
        self._pending = 0
        """Points in the last bucket if it can take more, else 0."""
        self._columns = [array("d") for _ in range(6)]
        self._fresh: list[tuple[float, float, float, float]] = []
        """Steps, update, time and value of points that are not in the columns yet."""

    def __len__(self) -> int:
        """Count the buckets."""
        return len(self._stored()[_MEAN])

    @property
    def stride(self) -> int:
        """Points in a bucket."""
        self._stored()
        return self._stride

    def __eq__(self, other: object) -> bool:
        """Compare what is stored, bucket by bucket."""
        if not isinstance(other, Series):
            return NotImplemented
        return self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    def along(self, axis: Axis) -> Array:
        """Where each bucket ends: environment steps, updates, or seconds of running, [N]."""
        return np.array(self._stored()[_AXES[axis]])

    @property
    def x(self) -> Array:
        """Environment steps at the end of each bucket, [N]."""
        return np.array(self._stored()[_STEPS])

    @property
    def low(self) -> Array:
        """Smallest value of each bucket, [N]."""
        return np.array(self._stored()[_LOW])

    @property
    def high(self) -> Array:
        """Largest value of each bucket, [N]."""
        return np.array(self._stored()[_HIGH])

    @property
    def mean(self) -> Array:
        """Mean value of each bucket, [N]."""
        return np.array(self._stored()[_MEAN])

    def append(self, x: float, value: float, update: float = 0, time: float = 0) -> None:
        """Add one finite point; the last bucket fills up before a new one begins."""
        self.last = value
        self._fresh.append((x, update, time, value))
        if len(self._fresh) >= _FRESH:
            self._stored()

    @property
    def points(self) -> int:
        """Points behind all buckets."""
        full = max(0, len(self) - 1) * self.stride
        return full + (self._pending or min(len(self), 1) * self.stride)

    def cut(self, last: float, axis: Axis = "updates") -> None:
        """Drop every bucket that reaches past `last` on an axis."""
        keep = int(np.searchsorted(self.along(axis), last, side="right"))
        if keep < len(self):
            for column in self._stored():
                del column[keep:]
            self._pending = 0
            self.last = self._columns[_MEAN][-1] if keep else None

    def hold_updates(self, most: float) -> None:
        """Let no bucket end at a later update: what was learned after it is lost."""
        held = np.minimum(self.along("updates"), most)
        self._columns[_UPDATE] = array("d", held.tobytes())

    def rolling_mean(self, window: int) -> Array:
        """Return the mean of the last `window` points at each bucket, [N].

        The window is rounded to whole buckets; the first ones average what there is.
        """
        span = max(1, window // self.stride)
        counts = np.minimum(np.arange(1, len(self) + 1), span)
        return _trailing_sums(self.mean, span) / counts

    def rolling_quartiles(self, window: int, places: NDArray[np.intp]) -> tuple[Array, Array]:
        """Lower and upper quartile of the last `window` points at P chosen buckets, [P] and [P].

        The window is rounded as that of `rolling_mean`; where a bucket stands for several points,
        its mean stands for each of them.
        """
        if not places.size:
            return np.empty(0), np.empty(0)
        span = max(1, window // self.stride)
        last = places[:, None] - np.arange(span)  # [P, span]
        values = np.where(last >= 0, self.mean[np.maximum(last, 0)], np.nan)
        low, high = np.nanpercentile(values, (25, 75), axis=1)
        return low, high

    def _state(self) -> tuple[object, ...]:
        """Everything that later points and curves depend on."""
        columns = self._stored()
        return self._stride, self._pending, self.last, self.limit, columns

    def _stored(self) -> list[array[float]]:
        """The columns, after the points that wait have been added to them."""
        fresh = self._fresh
        if fresh:
            room = self.limit - len(self._columns[_MEAN]) if self._stride == 1 else 0
            if room:
                self._extend(fresh[:room])
            for point in fresh[room:]:
                self._add(*point)
            fresh.clear()
        return self._columns

    def _extend(self, points: list[tuple[float, float, float, float]]) -> None:
        """Give each point a bucket of its own, for which there has to be room."""
        for column, numbers in zip(self._columns, zip(*points, strict=True), strict=False):
            column.extend(numbers)
        values = self._columns[_LOW][-len(points) :]
        self._columns[_HIGH].extend(values)
        self._columns[_MEAN].extend(values)

    def _add(self, x: float, update: float, time: float, value: float) -> None:
        if self._pending:
            self._grow_last_bucket(x, update, time, value)
        else:
            if len(self._columns[_MEAN]) == self.limit:
                self._merge_pairs()
            for column, number in zip(
                self._columns, (x, update, time, value, value, value), strict=True
            ):
                column.append(number)
        if self._stride > 1:
            self._pending = (self._pending + 1) % self._stride

    def _grow_last_bucket(self, x: float, update: float, time: float, value: float) -> None:
        steps, updates, times, lows, highs, means = self._columns
        steps[-1], updates[-1], times[-1] = x, update, time
        if value < lows[-1]:
            lows[-1] = value
        elif value > highs[-1]:
            highs[-1] = value
        means[-1] += (value - means[-1]) / (self._pending + 1)

    def _merge_pairs(self) -> None:
        for index, column in enumerate(self._columns):
            first, second = np.array(column).reshape(-1, 2).T
            if index == _LOW:
                merged = np.minimum(first, second)
            elif index == _HIGH:
                merged = np.maximum(first, second)
            else:
                merged = (first + second) / 2 if index == _MEAN else second
            self._columns[index] = array("d", merged.tobytes())
        self._stride *= 2


def _trailing_sums(values: Array, span: int) -> Array:
    """Sum the last `span` values at each position, [N] -> [N].

    Built from sums over 1, 2, 4, ... values: unlike the difference of two running sums, one
    enormous value leaves the sums behind it exact.
    """
    total, power, size, covered = np.zeros_like(values), values, 1, 0
    while span:
        if span & 1:
            total = total + _delayed(power, covered)
            covered += size
        power = power + _delayed(power, size)
        size *= 2
        span >>= 1
    return total


def _delayed(values: Array, steps: int) -> Array:
    """Shift to the right and fill with zeros, [N] -> [N]."""
    return np.concatenate((np.zeros(min(steps, len(values))), values))[: len(values)]
