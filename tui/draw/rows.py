"""Rows of styled text, and cutting them to so many columns: plain data, without Textual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.style import Style


class Part(NamedTuple):
    """A piece of a row: its text and the name of its look in dashboard.tcss."""

    text: str
    look: str | Style = "text"
    """`look@ground` lays the background of another look below it. Or a style: pixels."""


Row = Sequence[Part]


def cells(row: Row) -> int:
    """Count the columns that a row takes."""
    return sum(cell_len(part.text) for part in row)


def fit(text: str, width: int) -> str:
    """Crop or pad to exactly `width` columns; a cropped text ends in …"""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def fit_ends(text: str, width: int) -> str:
    """Crop or pad as `fit`, but in the middle: what tells names of runs apart is often the end."""
    if cell_len(text) <= width or width < 4:
        return fit(text, width)
    end = (width - 1) // 2
    return fit(text, width - end) + set_cell_size(text[::-1], end)[::-1]


def named(text: str, width: int) -> str:
    """Crop names with commas between them behind one of them: a, b, …"""
    names = text.split(", ")
    while cell_len(text) > width and len(names) > 1:
        names.pop()
        text = ", ".join([*names, "…"])
    return text if cell_len(text) <= width else fit(text, width)


def spread(left: Row, right: Row, width: int, fill: Part | None = None) -> Row:
    """Put one row at each end of `width` columns; the left one gives way if they do not fit."""
    room = width - cells(right)
    if room <= 0:
        return crop(right, width)
    kept = crop(left, room - 1 if right else room)
    gap = room - cells(kept)
    if fill is None or gap < 3:
        return [*kept, Part(" " * gap), *right]
    return [*kept, Part(" "), Part(fill.text * (gap - 2), fill.look), Part(" "), *right]


def crop(row: Row, width: int) -> Row:
    """Cut a row after `width` columns, with … where text is missing."""
    kept: list[Part] = []
    for part in row:
        size = cell_len(part.text)
        if size > width:
            if width > 0:
                kept.append(Part(fit(part.text, width), part.look))
            break
        kept.append(part)
        width -= size
    return kept


def bar(share: float, width: int, look: str = "bar") -> Row:
    """Draw a share of 0..1 as a line of `width` columns, in half-column steps."""
    halves = round(max(0.0, min(1.0, share)) * 2 * width)
    full, half = divmod(halves, 2)
    rest = width - full - half
    return [Part("━" * full + "╸" * half, look), Part("─" * rest, "bar-rest")]
