"""Small multiples: as many charts as asked for, arranged to fill the room."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.containers import Grid
from textual.message import Message
from textual.widget import AwaitMount

from dreamer_async.tui.draw.picture import Picture
from dreamer_async.tui.widgets.chart import Chart

_MIN_WIDTH, _MIN_HEIGHT = 22, 4
_ASPECT = 4.0
"""Columns per row of a chart that reads well."""


class ChartGrid(Grid):
    """A grid of charts of one size."""

    class Resized(Message):
        """There is more or less room for charts now."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._mount: AwaitMount | None = None
        self._fitted = (0, 0)
        """Columns and rows that the charts were arranged for."""

    async def mounted(self) -> None:
        """Wait until every chart that is to be shown is there."""
        mount, self._mount = self._mount, None  # to wait twice is to be laid out twice
        if mount is not None:
            await mount

    def lay_out(self, required: int, available: int, size: tuple[int, int] | None = None) -> int:
        """Lay out a grid and return how many charts it has room for.

        `size` is that of the grid in columns and rows, where it is about to change.
        """
        size = size or self.content_size
        columns, rows = grid_shape(required, available, *size)
        self.set_shape(columns, rows, size)
        return columns * rows

    def set_shape(self, columns: int, rows: int, size: tuple[int, int]) -> None:
        """Lay out a grid of so many places in a room of so many columns and rows of cells."""
        self._fitted = size
        if (self.styles.grid_size_columns, self.styles.grid_size_rows) != (columns, rows):
            self.styles.grid_size_columns = columns
            self.styles.grid_size_rows = rows

    def show(self, pictures: Sequence[Picture]) -> None:
        """Draw one chart per picture; charts are kept and only re-drawn."""
        charts = list(self.query_children(Chart))
        if len(pictures) > len(charts):
            new = [Chart() for _ in range(len(pictures) - len(charts))]
            self._mount = self.mount_all(new)
            charts += new
        for index, chart in enumerate(charts):
            wanted = index < len(pictures)
            if chart.display != wanted:
                chart.display = wanted
            if wanted:
                chart.show(pictures[index])

    def on_resize(self) -> None:
        if self.content_size != self._fitted:
            self.post_message(self.Resized())


def grid_shape(required: int, available: int, width: int, height: int) -> tuple[int, int]:
    """Choose (columns, rows) for at least `required` charts.

    Looks for charts about `_ASPECT` times as wide as high, without empty places or empty rows;
    where the room is too small for all, the charts become flat before they become narrow.
    """
    required = max(1, required)
    best, lowest = (1, required), math.inf
    for columns in range(1, max(1, width // _MIN_WIDTH) + 1):
        most = max(math.ceil(required / columns), height // _MIN_HEIGHT)
        for rows in range(math.ceil(required / columns), most + 1):
            places = columns * rows
            if places - columns >= max(required, available):
                continue
            shape = max(1.0, width / columns) / max(1.0, height / rows)
            blank = max(0, places - available)
            flat = max(0.0, _MIN_HEIGHT - height / rows)
            cost = abs(math.log(shape / _ASPECT)) + 0.2 * blank + flat
            if cost < lowest + 1e-9:  # of two that are as good the one with more charts
                best, lowest = (columns, rows), cost
    return best
