"""Curves as braille: pure numpy, from points to one code and one owner per character cell.

A cell of a terminal holds 2 x 4 braille dots. Every column of dots shows the smallest and the
largest value that fall into it, so that no spike is lost however many points there are.

Legend: N points, W columns and H rows of cells; a canvas is bool [4 H, 2 W], row 0 on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.tui.draw.axis import Scale
from dreamer_async.tui.draw.trace import Array, Trace, drawable_points

Canvas = NDArray[np.bool_]
Cells = NDArray[np.int16]
Pixels = NDArray[np.signedinteger[Any]]

EMPTY = -1
"""Owner of a cell without a dot."""

_DOT_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille cell, left and right, from the top."""
_CHARACTERS = np.array([ord(" "), *range(0x2801, 0x2900)], dtype="<u4")
"""What is written for each sum of bits."""
_DOT_WEIGHTS = tuple(np.uint16(256 * left + right) for left, right in _DOT_BITS)


def draw(trace: Trace, across: Scale, up: Scale, width: int, height: int) -> Canvas:
    """Draw one trace on a canvas of `width` x `height` cells, bool [4 H, 2 W]."""
    canvas = np.zeros((4 * height, 2 * width), dtype=np.bool_)
    x, y, low, high = drawable_points(trace, positive=up.log)
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
    x, _, low, high = drawable_points(trace, positive=up.log)
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
