"""Curves as braille: pure numpy, from points to one code and one owner per character cell.

A cell of a terminal holds 2 x 4 braille dots. Every column of dots shows the smallest and the
largest value that fall into it, so that no spike is lost however many points there are.

Legend: N points, W columns and H rows of cells; a canvas is bool [4 H, 2 W], row 0 on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Canvas = NDArray[np.bool_]
Cells = NDArray[np.int16]
Pixels = NDArray[np.signedinteger[Any]]

LIMIT = 1e100
"""Larger numbers are drawn as little as infinities are."""

EMPTY = -1
"""Owner of a cell without a dot."""

_DOT_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille cell, left and right, from the top."""
_CHARACTERS = np.array([ord(" "), *range(0x2801, 0x2900)], dtype="<u4")
"""What is written for each sum of bits."""
_DOT_WEIGHTS = tuple(np.uint16(256 * left + right) for left, right in _DOT_BITS)


@dataclass(frozen=True)
class Trace:
    """One curve: points [N] in drawing order of their x."""

    x: Array
    y: Array
    low: Array | None = None
    """Smallest value behind each point, where a point stands for several; else y."""
    high: Array | None = None
    kind: Literal["line", "dots"] = "line"

    @cached_property
    def bottom(self) -> Array:
        """Smallest values, [N]."""
        return self.y if self.low is None else self.low

    @cached_property
    def top(self) -> Array:
        """Largest values, [N]."""
        return self.y if self.high is None else self.high

    @cached_property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest value, (inf, -inf) without points; NaN if one of them is."""
        if not len(self.y):
            return math.inf, -math.inf
        return float(self.bottom.min()), float(self.top.max())

    @cached_property
    def breadth(self) -> tuple[float, float]:
        """Smallest and largest x, as `extent`."""
        return (float(self.x.min()), float(self.x.max())) if len(self.x) else (math.inf, -math.inf)

    @cached_property
    def ascending(self) -> bool:
        """Whether every x is at least as large as the one before."""
        return _ascends(self.x)

    def within(self, first: float, last: float) -> Trace:
        """Keep the points from one x to another, with both ends."""
        kept = (self.x >= first) & (self.x <= last)
        low = None if self.low is None else self.low[kept]
        high = None if self.high is None else self.high[kept]
        return Trace(self.x[kept], self.y[kept], low, high, self.kind)


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


def draw(trace: Trace, across: Scale, up: Scale, width: int, height: int) -> Canvas:
    """Draw one trace on a canvas of `width` x `height` cells, bool [4 H, 2 W]."""
    canvas = np.zeros((4 * height, 2 * width), dtype=np.bool_)
    x, y, low, high = _points(trace, positive=up.log)
    if not len(x) or not canvas.size:
        return canvas
    starts, columns = _columns(x, across, 2 * width)
    if trace.kind == "dots":
        column = np.repeat(columns.astype(np.int32), np.diff(starts, append=len(x)))
        for values in (low,) if high is low else (low, high):
            index = _rows(values, up, 4 * height)
            index *= 2 * width
            index += column
            canvas.reshape(-1)[index] = True
        return canvas
    ends = np.append(starts[1:], len(x)) - 1
    bottom, top = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    ranges = _joined(columns, bottom, top, y[starts], y[ends], 2 * width, up)
    used = np.zeros(2 * width, dtype=np.bool_)
    used[columns[0] : columns[-1] + 1] = True
    lowest, highest = (_pixel_rows(part, 4 * height).astype(np.int16) for part in ranges)
    highest[~used] = 4 * height  # below every row
    rows = np.arange(4 * height, dtype=np.int16)[:, None]  # of the same type: no conversion
    canvas = rows >= highest
    canvas &= rows <= lowest
    return canvas


def thickened(canvas: Canvas) -> Canvas:
    """Draw each dot of a canvas twice, the second time below it; in the lowest row above it."""
    thick = canvas.copy()
    thick[1:] |= canvas[:-1]
    thick[-2:-1] |= canvas[-1:]
    return thick


MARK_EVERY = 24
"""Cells between two marks on a curve."""


def mark_places(canvas: Canvas, turn: int) -> list[tuple[int, int]]:
    """Where marks stand on a curve: (row, column) of cells, some columns further for each turn.

    Curves that lie on each other have their marks beside each other so.
    """
    height, width = canvas.shape[0] // 4, canvas.shape[1] // 2
    used: Canvas = np.asarray(canvas.reshape(height, 4, width, 2).any(axis=(1, 3)), dtype=np.bool_)
    every = min(MARK_EVERY, max(8, width // 2))
    columns = range(min(width - 1, 3 + 3 * turn), width, every) if used.size else ()
    return [(int(used[:, c].argmax()), c) for c in columns if used[:, c].any()]


def rule(value: float, up: Scale, width: int, height: int) -> Canvas:
    """Draw a dotted horizontal line at `value`, bool [4 H, 2 W]."""
    canvas = np.zeros((4 * height, 2 * width), dtype=np.bool_)
    if up.log and value <= 0:
        return canvas
    position = float(up.position(np.array([value]))[0])
    if canvas.size and 0 <= position <= 1:
        canvas[_pixel_rows(np.array([position]), 4 * height)[0], ::2] = True
    return canvas


def layer(canvases: Sequence[Canvas]) -> tuple[Cells, Cells]:
    """Lay canvases over each other, the last on top: codes and owners, both [H, W].

    A cell shows the dots of its topmost canvas only, so that every line keeps its own shape;
    its owner is that canvas' index, or EMPTY.
    """
    height, width = canvases[0].shape[0] // 4, canvases[0].shape[1] // 2
    codes = np.zeros((height, width), dtype=np.int16)
    owners = np.full((height, width), EMPTY, dtype=np.int16)
    for index, canvas in enumerate(canvases):
        bits = _cell_bits(canvas)
        codes = np.where(bits > 0, bits, codes)
        owners = np.where(bits > 0, np.int16(index), owners)
    return codes, owners


def _cell_bits(canvas: Canvas) -> Cells:
    """Gather the dots of each cell of a canvas, [4 H, 2 W] -> [H, W].

    Both dots of a row of a cell are one number, left + 256 right. Its product with
    256 left bit + right bit has, modulo 2**16, the sum of the bits that are set in its high byte.
    """
    pairs = np.ascontiguousarray(canvas).view("<u2")
    bits = np.zeros((pairs.shape[0] // 4, pairs.shape[1]), dtype=np.uint16)
    for row, weight in enumerate(_DOT_WEIGHTS):
        bits += (pairs[row::4] * weight) >> 8
    return bits.view(np.int16)


def shade(trace: Trace, across: Scale, up: Scale, width: int, height: int) -> Canvas:
    """Tell which cells the range of a trace covers, bool [H, W]: by half, or as no other.

    Between points it is as wide as a straight line makes it; where it is thinner than half a
    cell, the best cell of each column is covered.
    """
    x, _, low, high = _points(trace, positive=up.log)
    if not len(x) or not width * height:
        return np.zeros((height, width), dtype=np.bool_)
    starts, columns = _columns(x, across, 2 * width)
    grid = np.arange(2 * width)
    ends = (
        up.position(np.minimum.reduceat(low, starts)),
        up.position(np.maximum.reduceat(high, starts)),
    )
    bottom, top = (np.interp(grid, columns, end, np.nan, np.nan) * height for end in ends)
    floors = np.arange(height - 1, -1, -1)[:, None]  # of the rows of cells, the top one first
    part = np.minimum(top + 1 / 8, floors + 1) - np.maximum(bottom - 1 / 8, floors)
    share = np.nan_to_num(part).clip(0).reshape(height, width, 2).sum(axis=-1)
    enough = share >= 1
    best = (share > 0) & (share == share.max(axis=0))
    return enough | (best & ~enough.any(axis=0))


def text_rows(codes: Cells) -> list[str]:
    """Turn cells [H, W] into H strings of W characters; an empty cell is a space."""
    height, width = codes.shape
    text = _CHARACTERS.take(codes).tobytes().decode("utf-32-le")
    return [text[row * width : (row + 1) * width] for row in range(height)]


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
        if _inside(extent, positive=positive):
            low, high = min(low, extent[0]), max(high, extent[1])
            continue
        for array in arrays:
            kept = array[_usable(array, positive)]
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


def _inside(extent: tuple[float, float], *, positive: bool) -> bool:
    """Tell whether all values of a range have a place on the axis; false for NaN."""
    return extent[0] >= -LIMIT and extent[1] <= LIMIT and (extent[0] > 0 or not positive)


def _usable(values: Array, positive: bool) -> Canvas:
    return (np.abs(values) <= LIMIT) & ((values > 0) | (not positive))


def _points(trace: Trace, *, positive: bool) -> tuple[Array, Array, Array, Array]:
    """Return x, y, low, high of the drawable points, ascending in x; low is high without both."""
    points, ascending = (trace.x, trace.y, trace.bottom, trace.top), trace.ascending
    if len(trace.y) and not _inside(trace.extent, positive=positive):
        usable = _usable(trace.bottom, positive) & _usable(trace.top, positive)
        points = _picked(points, usable)
    if len(trace.x) and not _inside(trace.breadth, positive=False):
        points = _picked(points, _usable(points[0], False))
        ascending = _ascends(points[0])  # beside a NaN nothing is smaller
    if not ascending:
        points = _picked(points, np.argsort(points[0], kind="stable"))
    x, y, low, high = points
    return x, y, low, low if trace.bottom is trace.top else high


def _ascends(x: Array) -> bool:
    return not (x[1:] < x[:-1]).any()


def _picked(points: tuple[Array, ...], which: NDArray[Any]) -> tuple[Array, Array, Array, Array]:
    x, y, low, high = (part[which] for part in points)
    return x, y, low, high


def _columns(x: Array, across: Scale, size: int) -> tuple[Pixels, Pixels]:
    """Find the occupied columns of dots and the index of the first point in each of them."""
    inner = (np.arange(1, size) - 0.5) / max(1, size - 1)
    borders = np.concatenate(([-np.inf], across.low + inner * (across.high - across.low)))
    starts = np.searchsorted(x, borders)
    filled = np.append(starts[1:], len(x)) > starts
    return starts[filled], np.flatnonzero(filled)


def _rows(values: Array, up: Scale, size: int) -> Pixels:
    return _pixel_rows(up.position(values), size)


def _pixel_rows(position: Array, size: int) -> Pixels:
    """Turn positions 0..1 into rows size-1..0 of a canvas."""
    scaled = position * (1 - size)
    scaled += size - 0.5
    rows = scaled.astype(np.int32)
    np.maximum(rows, 0, out=rows)
    return np.minimum(rows, size - 1, out=rows)  # np.clip would look up the limits of int32


_QUARTERS = np.array([-0.25, 0.25])


def _joined(
    columns: Pixels,
    bottom: Array,
    top: Array,
    first: Array,
    last: Array,
    size: int,
    up: Scale,
) -> tuple[Array, Array]:
    """Return the lowest and highest position of the line in each of `size` columns.

    Neighbouring columns meet halfway between the last value of one and the first of the other,
    and columns without points are crossed in a straight line.
    """
    corners = (columns[:, None] + _QUARTERS).reshape(-1)
    heights = np.empty((len(columns), 2))
    heights[:, 0], heights[:, 1] = up.position(first), up.position(last)
    heights = heights.reshape(-1)
    borders = np.interp(np.arange(size + 1) - 0.5, corners, heights)
    lows, highs = np.minimum(borders[:-1], borders[1:]), np.maximum(borders[:-1], borders[1:])
    lows[columns] = np.minimum(lows[columns], up.position(bottom))
    highs[columns] = np.maximum(highs[columns], up.position(top))
    return lows, highs
