"""Pixels as cells of text: two on top of each other, or shades of characters without colour."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style

from dreamer_async.tui.draw.rows import Part, Row

Pixels = NDArray[np.uint8]
"""[H, W, 3]."""

LEVELS = 16
"""Steps of each colour: fewer styles to make and fewer bytes to send."""
_SHADES = " .:-=+*#%@"


def fitted(shape: tuple[int, ...], width: int, height: int) -> tuple[int, int]:
    """Rows and columns of cells for pixels [H, W, ...] as large as the room allows.

    A cell is as wide as it is high by half, so that two pixels on top of each other are square.
    """
    tall, wide = shape[0], shape[1]
    scale = min(width / wide, 2 * height / tall)
    if scale >= 1:
        scale = int(scale)  # whole pixels look sharper
    return max(1, round(tall * scale / 2)), max(1, min(width, round(wide * scale)))


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize [H, W, 3]: the mean of what falls into a pixel, or the nearest when enlarged."""
    return _axis_resized(_axis_resized(pixels, height, 0), width, 1)


def _axis_resized(pixels: Pixels, size: int, axis: int) -> Pixels:
    old = pixels.shape[axis]
    if size >= old:
        return np.take(pixels, np.arange(size) * old // size, axis)
    edges = np.arange(size) * old // size
    sums = np.add.reduceat(pixels.astype(np.uint32), edges, axis)
    counts = np.diff(edges, append=old)
    shape = [1, 1, 1]
    shape[axis] = size
    return (sums // counts.reshape(shape)).astype(np.uint8)


def half_blocks(pixels: Pixels) -> list[Row]:
    """Draw [2 R, W, 3] as R rows of upper half blocks, runs of equal cells in one part."""
    steps = np.round(pixels.astype(np.float32) * ((LEVELS - 1) / 255)).astype(np.int32)
    codes = (steps[..., 0] * LEVELS + steps[..., 1]) * LEVELS + steps[..., 2]
    pairs = codes[0::2] * LEVELS**3 + codes[1::2]
    rows: list[Row] = []
    for line in pairs.tolist():
        runs = [(pair, len(list(run))) for pair, run in groupby(line)]
        rows.append([Part("▀" * length, _cell_style(pair)) for pair, length in runs])
    return rows


@lru_cache(maxsize=1 << 16)
def _cell_style(pair: int) -> Style:
    top, bottom = divmod(pair, LEVELS**3)
    return Style(color=_colour(top), bgcolor=_colour(bottom))


@lru_cache(maxsize=LEVELS**3)
def _colour(code: int) -> Color:
    red, rest = divmod(code, LEVELS**2)
    green, blue = divmod(rest, LEVELS)
    scale = 255 // (LEVELS - 1)
    return Color.from_rgb(red * scale, green * scale, blue * scale)


def shaded(pixels: Pixels) -> list[Row]:
    """Draw [2 R, W, 3] as R rows of characters from dark to bright."""
    luminance = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    cell = (luminance[0::2] + luminance[1::2]) / 2
    index = np.minimum(len(_SHADES) - 1, cell * len(_SHADES) / 256).astype(np.int32)
    return [[Part("".join(_SHADES[i] for i in line))] for line in index.tolist()]
