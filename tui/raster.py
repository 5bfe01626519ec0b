"""A screen of text as pixels, for pictures that look the same wherever they are shown.

Letters come from DejaVu Sans Mono, which matplotlib brings; braille, blocks and lines are drawn
here, as terminals do, so that they meet at the borders of cells. Needs the extras `pictures` and
`plots`.

Legend: R rows and C columns of the screen, H and W pixels of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.strip import Strip

Pixels = NDArray[np.uint8]
Colour = tuple[int, ...]
"""Red, green, blue."""

WIDTH, HEIGHT = 9, 17
"""Of a cell, in pixels."""
_POINTS = 15
"""Size of letters that are as wide as a cell."""
_BLOCKS = {"▀": (0.0, 0.0, 1.0, 0.5), "▄": (0.0, 0.5, 1.0, 1.0), "▌": (0.0, 0.0, 0.5, 1.0)}
_BLOCKS |= {"█": (0.0, 0.0, 1.0, 1.0), "▐": (0.5, 0.0, 1.0, 1.0)}
"""Left, top, right and bottom of what is filled, in parts of a cell."""
_LINES = {"─": ("lr", 1), "│": ("tb", 1), "━": ("lr", 2), "╸": ("l", 2), "╍": ("lr-", 2)}
_LINES |= {"╭": ("rb", 1), "╮": ("lb", 1), "╰": ("rt", 1), "╯": ("lt", 1)}
"""To which sides of a cell (left, right, top, bottom) a line goes, and how thick it is."""
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit of a braille character."""


def raster(strips: Sequence[Strip], background: Colour) -> Pixels:
    """Draw the rows of a screen: [R * H, W * C, 3]."""
    return np.concatenate([_row(strip, background) for strip in strips])


def _row(strip: Strip, background: Colour) -> Pixels:
    """[H, W * C, 3]."""
    cells = []
    for text, style, _ in strip:
        ink, ground = _colours(style or Style.null(), background)
        bold = bool(style and style.bold)
        cells += [_cell(char, ink, ground, bold) for char in text]
    return np.concatenate(cells, axis=1)


def _colours(style: Style, background: Colour) -> tuple[Colour, Colour]:
    """Colours of letters and of what lies behind them."""
    theme = DEFAULT_TERMINAL_THEME
    ink = tuple(style.color.get_truecolor(theme)) if style.color else (208, 215, 222)
    ground = tuple(style.bgcolor.get_truecolor(theme, False)) if style.bgcolor else background
    if style.dim:
        ink = tuple((a + b) // 2 for a, b in zip(ink, ground, strict=True))
    return (ground, ink) if style.reverse else (ink, ground)


@lru_cache(maxsize=1 << 14)
def _cell(char: str, ink: Colour, ground: Colour, bold: bool) -> Pixels:
    """[H, W, 3]."""
    cover = _cover(char, bold)[..., None]
    mixed = cover * np.array(ink) + (1 - cover) * np.array(ground)
    return np.rint(mixed).astype(np.uint8)


@lru_cache(maxsize=1 << 10)
def _cover(char: str, bold: bool) -> NDArray[np.float64]:
    """How much of each pixel a character covers: [H, W], 0 to 1."""
    if 0x2800 <= ord(char) < 0x2900:
        return _braille(ord(char) - 0x2800)
    if char in _BLOCKS:
        return _block(*_BLOCKS[char])
    if char in _LINES:
        return _line(*_LINES[char])
    image = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).text((0, HEIGHT - 4), char, 255, _font(bold), anchor="ls")
    return np.asarray(image) / 255


def _braille(bits: int) -> NDArray[np.float64]:
    cover = np.zeros((HEIGHT, WIDTH))
    for bit, (column, row) in enumerate(_DOTS):
        if bits >> bit & 1:
            top, left = round((row + 0.5) * HEIGHT / 4) - 1, round((column + 0.5) * WIDTH / 2) - 1
            cover[top : top + 3, left : left + 3] = 0.45
            cover[top : top + 3, left + 1] = cover[top + 1, left : left + 3] = 1.0
    return cover


def _block(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    cover = np.zeros((HEIGHT, WIDTH))
    rows = slice(round(top * HEIGHT), round(bottom * HEIGHT))
    cover[rows, round(left * WIDTH) : round(right * WIDTH)] = 1.0
    return cover


def _line(sides: str, thick: int) -> NDArray[np.float64]:
    cover = np.zeros((HEIGHT, WIDTH))
    row, column = HEIGHT // 2, WIDTH // 2
    across, along = slice(row, row + thick), slice(column, column + thick)
    if "l" in sides:
        cover[across, : column + thick] = 1.0
    if "r" in sides:
        cover[across, column:] = 1.0
    if "t" in sides:
        cover[: row + thick, along] = 1.0
    if "b" in sides:
        cover[row:, along] = 1.0
    if "-" in sides:
        cover[:, WIDTH - 2 :] = 0.0
    return cover


@lru_cache(maxsize=2)
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = f"DejaVuSansMono{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), _POINTS)
