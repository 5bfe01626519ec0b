"""Many charts in groups, a page of them at a time, each group below a caption of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from textual.app import ComposeResult
from textual.containers import Vertical

from dreamer_async.tui.draw.picture import Picture
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption

_LEAST_WIDTH, _WIDTH = 22, 30
"""Columns of a chart: never fewer, and about as many as are wanted."""
_LOW, _HEIGHT, _TALL = 4, 6, 28
"""Rows of a chart on a low page, on a tall one, and of a tall page."""


class Section(NamedTuple):
    """Charts of one group on a page."""

    title: str
    first: int
    """Number of the first one among all charts, from 0."""
    charts: int
    continued: bool
    """Others of the group are on the page before."""

    @property
    def stop(self) -> int:
        """One more than the number of the last one."""
        return self.first + self.charts


def page_of(chart: int, pages: Sequence[Sequence[Section]]) -> int:
    """Number of the page that a chart is on."""
    ends = [page[-1].stop for page in pages]
    return next((number for number, end in enumerate(ends) if chart < end), len(pages) - 1)


def paged(
    groups: Sequence[tuple[str, int]], columns: int, rows: int, height: int
) -> list[list[Section]]:
    """Spread groups of so many charts over pages of so many rows of cells.

    A chart takes at least `height` of them, and a caption one. A group goes on on the next page
    where it does not fit; a page has at least one line of charts, however low it is.
    """
    pages: list[list[Section]] = [[]]
    left, first = rows, 0
    for title, count in groups:
        placed = 0
        while placed < count:
            lines = (left - 1) // height
            if lines < 1 and pages[-1]:
                pages.append([])
                left = rows
                continue
            taken = min(count - placed, max(1, lines) * columns)
            pages[-1].append(Section(title, first + placed, taken, placed > 0))
            left -= 1 + math.ceil(taken / columns) * height
            placed += taken
        first += count
    return pages


def shared(rows: int, lines: Sequence[int]) -> list[int]:
    """Rows of cells for each section, one for its caption; all lines of charts about as high."""
    total, room = sum(lines), max(sum(lines), rows - len(lines))
    ends = [room * sum(lines[:place]) // max(1, total) for place in range(len(lines) + 1)]
    return [stop - start for start, stop in pairwise(ends)]


class Sections(Vertical):
    """Shows a page of groups of charts."""

    def __init__(self, most: int, *, id: str | None = None) -> None:
        """`most` is how many groups there may be."""
        super().__init__(id=id)
        self._most = most
        self._fitted = (0, 0)

    def compose(self) -> ComposeResult:
        for _ in range(self._most):
            yield Caption("", "accent")
            yield ChartGrid()

    def lay_out(self, groups: Sequence[tuple[str, int]]) -> list[list[Section]]:
        """Spread groups of so many charts over pages of this size."""
        self._fitted = self.content_size
        rows = self._fitted[1]
        return paged(groups, self._columns, rows, _HEIGHT if rows >= _TALL else _LOW)

    @property
    def _columns(self) -> int:
        width = self._fitted[0]
        return max(1, min(width // _LEAST_WIDTH, round(width / _WIDTH)))

    def show(self, page: Sequence[Section], pictures: Sequence[Picture]) -> None:
        """Draw a page: as many pictures as its sections count."""
        lines = [math.ceil(section.charts / self._columns) for section in page]
        heights = shared(self._fitted[1], lines)
        parts = zip(self.query_children(Caption), self.query_children(ChartGrid), strict=True)
        for place, (caption, grid) in enumerate(parts):
            caption.display = grid.display = place < len(page)
            if place >= len(page):
                continue
            section, height = page[place], heights[place]
            caption.name_it(section.title + (", continued" if section.continued else ""))
            grid.styles.height = height
            grid.set_shape(self._columns, lines[place], (self._fitted[0], height))
            start = section.first - page[0].first
            grid.show(pictures[start : start + section.charts])

    def on_resize(self) -> None:
        if self.content_size != self._fitted:
            self.post_message(ChartGrid.Resized())
