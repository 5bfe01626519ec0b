"""Pictures as half blocks: two pixels a cell, or shades of characters where colour is missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual.geometry import Size

from dreamer_async.tui.draw.rows import Part, Row, cells, crop, fit
from dreamer_async.tui.widgets.panel import Panel

Pixels = NDArray[np.uint8]
"""[H, W, 3]."""

GAP = 2
"""Columns between pictures."""
OTHER_ROWS = 2
"""Rows of a page that are not the pictures': its caption and a blank one."""
LEVELS = 16
"""Steps of each colour: fewer styles to make and fewer bytes to send."""
_SHADES = " .:-=+*#%@"


class Video(Panel):
    """Shows pictures of one size side by side, each with a title."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._titles: Sequence[str] = ()
        self._pictures: Sequence[Pixels] = ()
        self._notes: Sequence[Row] = ()

    def show(self, titles: Sequence[str], pictures: Sequence[Pixels], notes: Sequence[Row]) -> None:
        """Replace the pictures and the rows below them."""
        before = self._shape()
        self._titles, self._pictures, self._notes = titles, pictures, notes
        self.repaint()
        if self._shape() != before:
            self.refresh(layout=True)

    def _shape(self) -> tuple[object, ...]:
        return len(self._notes), [picture.shape for picture in self._pictures]

    def rows(self, width: int, height: int) -> int:
        """Rows that the pictures with all around them take in a room of so many cells."""
        if not self._pictures:
            return min(height, len(self._notes))
        rows, _ = self._fitted(width, height)
        return min(height, 1 + rows + len(self._notes))

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        room = (width - GAP * (len(self._pictures) - 1)) // len(self._pictures)
        return fitted(self._pictures[0].shape, room, height - 1 - len(self._notes))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Ask for what the pictures need, and leave the rest to what stands below."""
        return max(1, self.rows(width, container.height - OTHER_ROWS))

    def paint(self, width: int, height: int) -> list[Row]:
        if not self._pictures:
            return [crop(note, width) for note in self._notes][:height]
        rows, columns = self._fitted(width, height)
        shades = self.app.no_color or getattr(self.app, "ascii", False)
        draw = shaded if shades else half_blocks
        drawn = [draw(resized(p, 2 * rows, columns)) for p in self._pictures]
        head: list[Part] = []
        for title in self._titles:
            head.append(Part(fit(title, columns), "title"))
            head.append(Part(" " * GAP))
        lines: list[Row] = [head]
        for parts in zip(*drawn, strict=True):
            lines.append([part for row in parts for part in (*row, Part(" " * GAP))])
        margin = " " * max(0, (width - cells(lines[0])) // 2)
        rows_drawn: list[Row] = [[Part(margin), *line] for line in [*lines, *self._notes]]
        return [crop(row, width) for row in rows_drawn][:height]


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
