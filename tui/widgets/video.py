"""Pictures side by side: in pixels where the terminal has them, else in half blocks or letters."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual.geometry import Size

from dreamer_async.tui.album import Album, Shown
from dreamer_async.tui.draw.kitty import placeholders
from dreamer_async.tui.draw.pixels import Pixels, fitted, half_blocks, resized, shaded
from dreamer_async.tui.draw.rows import Part, Row, cells, crop, fit
from dreamer_async.tui.widgets.panel import Panel

GAP = 2
"""Columns between pictures."""
OTHER_ROWS = 2
"""Rows of a page that are not the pictures': its caption and a blank one."""


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
        if getattr(self.app, "album", None) is not None:
            self.app.post_display_hook()  # other pixels on the same text are no frame

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
        drawn = self._drawn(rows, columns)
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

    def _drawn(self, rows: int, columns: int) -> list[list[Row]]:
        """The rows of every picture, so many of so many columns."""
        album: Album | None = getattr(self.app, "album", None)
        if album is not None and album.has_room(rows, len(self._pictures)):
            album.show([Shown(picture, rows, columns) for picture in self._pictures])
            inks = [Style(color=album.ink(place)) for place in range(len(self._pictures))]
            return [[[Part(row, ink)] for row in placeholders(rows, columns)] for ink in inks]
        shades = self.app.no_color or getattr(self.app, "ascii", False)
        draw = shaded if shades else half_blocks
        return [draw(resized(p, 2 * rows, columns)) for p in self._pictures]
