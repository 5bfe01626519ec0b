"""Axes: the range of values that is shown, and the round values that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamer_async.tui.draw.trace import LIMIT, Array, Trace, all_drawable, drawable


@dataclass(frozen=True)
class Scale:
    """A range of values and how it is laid on an axis."""

    low: float
    high: float
    log: bool = False

    def position(self, values: Array) -> Array:
        """Map values to 0 (low end) .. 1 (high end); a log axis takes positive ones only."""
        if self.log:
            position = np.log(values) - math.log(self.low)
            return position / (math.log(self.high) - math.log(self.low))
        position = np.asarray(values - self.low, dtype=np.float64)
        position /= self.high - self.low
        return position


def value_scale(
    traces: Sequence[Trace], include: Sequence[float] = (), *, log: bool = False
) -> Scale | None:
    """Return the range of all finite values and those to include, or None without any.

    A log axis needs a positive value; without one the axis is linear.
    """
    bounds = _value_bounds(traces, include, positive=True) if log else None
    if bounds is not None:
        return _widened(*bounds, log=True)
    bounds = _value_bounds(traces, include, positive=False)
    return None if bounds is None else _widened(*bounds, log=False)


def step_scale(traces: Sequence[Trace]) -> Scale | None:
    """Return the range of the x of all traces, or None without a point."""
    bounds = _bounds([(trace.breadth, (trace.x,)) for trace in traces], positive=False)
    return None if bounds is None else _widened(*bounds, log=False)


def wants_log(traces: Sequence[Trace], factor: float = 20.0) -> bool:
    """Tell whether all values are positive and spread over more than `factor`."""
    scale = value_scale(traces)
    return scale is not None and 0 < scale.low * factor < scale.high


def even(scale: Scale, height: int) -> Scale:
    """Widen a linear scale a little, so that round values lie equally many rows of cells apart.

    A row then stands for a round value divided by a whole number. Where that took more than
    WIDEST the scale stays, and some of those values are a row nearer to each other than others.
    """
    span = scale.high - scale.low
    if scale.log or height < 3 or not 0 < span < LIMIT:
        return scale
    for most in (MOST_ROWS, max(MOST_ROWS, height // 2)):
        low, row = _even_rows(scale, height, most)
        wide = (height - 1) * row
        if wide <= WIDEST * span:
            return Scale(low, low + wide)
    return scale


WIDEST = 1.3
"""How much longer an axis may become for even labels."""
MOST_ROWS = 5
"""Rows between two labels, if that can be."""


def _even_rows(scale: Scale, height: int, most: int) -> tuple[float, float]:
    """The lowest value and the value of a row of the shortest scale that would do."""
    span = scale.high - scale.low
    found = []
    for rows in range(2, most + 1):
        power = 10.0 ** math.floor(math.log10(rows * span / height))
        for step in (factor * power for factor in (1, 2, 5, 10, 20)):
            row = step / rows
            low = math.floor(scale.low / row + 1e-9) * row
            if low + (height - 1) * row >= scale.high - 1e-9 * span:
                found.append((row, low))
                break
    row, low = min(found)
    return low, row


def ticks(scale: Scale, most: int) -> list[float]:
    """Choose at most `most` round values inside a linear scale (1, 2 or 5 times a power of 10)."""
    span = scale.high - scale.low
    if most < 1 or not math.isfinite(span) or span <= 0:
        return []
    step = _round_up(span / most)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [index * step for index in range(first, min(last, first + most) + 1)]


def decades(scale: Scale) -> list[float]:
    """Choose round values inside a positive range: powers of ten, or 1, 2 and 5 times those.

    Its ends if there are not two of them.
    """
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for factors in ((1,), (1, 2, 5)):
        step = max(1, (last - first) // 6) if factors == (1,) else 1
        powers = [10.0**power for power in range(first, last + 1, step)]
        inside = [f * p for p in powers for f in factors if scale.low <= f * p <= scale.high]
        if len(inside) > 1:
            return inside
    return [scale.low, scale.high]


def _round_up(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _value_bounds(
    traces: Sequence[Trace], include: Sequence[float], *, positive: bool
) -> tuple[float, float] | None:
    parts = [(trace.extent, (trace.bottom, trace.top)) for trace in traces]
    parts += [((value, value), (np.array([value]),)) for value in include]
    return _bounds(parts, positive=positive)


def _bounds(
    parts: Sequence[tuple[tuple[float, float], tuple[Array, ...]]], *, positive: bool
) -> tuple[float, float] | None:
    """Join ranges; where one is not drawable, look at what in its arrays is."""
    low, high = math.inf, -math.inf
    for extent, arrays in parts:
        if all_drawable(extent, positive=positive):
            low, high = min(low, extent[0]), max(high, extent[1])
            continue
        for array in arrays:
            kept = array[drawable(array, positive)]
            if len(kept):
                low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return (low, high) if low <= high else None


def _widened(low: float, high: float, *, log: bool) -> Scale:
    """Give a constant series room on both sides."""
    if log:
        return Scale(low, high, log) if high > low * (1 + 1e-9) else Scale(low / 2, high * 2, log)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return Scale(low, high)
    room = 0.1 * abs(low) or 1.0
    return Scale(low - room, high + room)
