"""A curve that can grow for weeks: bounded memory, extremes kept, means honest.

Legend: N buckets in use, C capacity of the table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_X, _UPDATE, _LOW, _HIGH, _MEAN = range(5)


class Series:
    """Points over environment steps, merged pairwise into buckets once there are too many.

    A bucket covers `stride` consecutive points and knows their last x, last update, minimum,
    maximum and mean. What the series holds depends on the points alone and not on when they
    came, so that a re-read file gives the same series as one that was watched.
    """

    def __init__(self, limit: int = 16_384) -> None:
        assert limit >= 2 and limit % 2 == 0, limit
        self.limit = limit
        self.stride = 1
        self.last: float | None = None
        self._length = 0
        self._pending = 0
        self._table: Array = np.empty((5, min(limit, 256)))

    def __len__(self) -> int:
        """Count the buckets."""
        return self._length

    def __eq__(self, other: object) -> bool:
        """Compare what is stored, bucket by bucket."""
        if not isinstance(other, Series):
            return NotImplemented
        mine = (self.stride, self._pending, self.last, self.limit)
        theirs = (other.stride, other._pending, other.last, other.limit)
        return mine == theirs and np.array_equal(self._used, other._used)

    __hash__ = None  # type: ignore[assignment]

    @property
    def _used(self) -> Array:
        return self._table[:, : self._length]

    @property
    def x(self) -> Array:
        """Environment steps at the end of each bucket, [N]."""
        return self._used[_X]

    @property
    def low(self) -> Array:
        """Smallest value of each bucket, [N]."""
        return self._used[_LOW]

    @property
    def high(self) -> Array:
        """Largest value of each bucket, [N]."""
        return self._used[_HIGH]

    @property
    def mean(self) -> Array:
        """Mean value of each bucket, [N]."""
        return self._used[_MEAN]

    def append(self, x: float, value: float, update: float = 0) -> None:
        """Add one finite point; the last bucket fills up before a new one begins."""
        self.last = value
        if self._pending:
            self._grow_last_bucket(x, value, update)
        else:
            self._open_bucket(x, value, update)
        self._pending = (self._pending + 1) % self.stride

    def cut(self, update: float) -> None:
        """Drop every bucket that reaches past `update`."""
        keep = int(np.searchsorted(self._used[_UPDATE], update, side="right"))
        if keep < self._length:
            self._length = keep
            self._pending = 0
            self.last = float(self.mean[-1]) if keep else None

    def rolling_mean(self, window: int) -> Array:
        """Return the mean of the last `window` points at each bucket, [N].

        The window is rounded to whole buckets; the first ones average what there is.
        """
        span = max(1, window // self.stride)
        counts = np.minimum(np.arange(1, self._length + 1), span)
        return _trailing_sums(self.mean, span) / counts

    def _open_bucket(self, x: float, value: float, update: float) -> None:
        if self._length == self.limit:
            self._merge_pairs()
        elif self._length == self._table.shape[1]:
            self._enlarge()
        self._table[:, self._length] = (x, update, value, value, value)
        self._length += 1

    def _grow_last_bucket(self, x: float, value: float, update: float) -> None:
        _, _, low, high, mean = self._table[:, self._length - 1]
        mean += (value - mean) / (self._pending + 1)
        column = (x, update, min(low, value), max(high, value), mean)
        self._table[:, self._length - 1] = column

    def _enlarge(self) -> None:
        larger = np.empty((5, min(2 * self._length, self.limit)))
        larger[:, : self._length] = self._used
        self._table = larger

    def _merge_pairs(self) -> None:
        first, second = self._used[:, 0::2].copy(), self._used[:, 1::2].copy()
        half = self._length // 2
        self._table[_X, :half] = second[_X]
        self._table[_UPDATE, :half] = second[_UPDATE]
        self._table[_LOW, :half] = np.minimum(first[_LOW], second[_LOW])
        self._table[_HIGH, :half] = np.maximum(first[_HIGH], second[_HIGH])
        self._table[_MEAN, :half] = (first[_MEAN] + second[_MEAN]) / 2
        self._length = half
        self.stride *= 2


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
