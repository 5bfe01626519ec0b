"""A list that is longer than its room: a title, a heading, and the rows that fit."""

from __future__ import annotations

from collections.abc import Callable

from textual.events import MouseScrollDown, MouseScrollUp
from textual.geometry import Size

from dreamer_async.tui.draw.rows import Part, Row, crop, spread
from dreamer_async.tui.widgets.panel import Panel

WHEEL_ROWS = 3


class Listing(Panel):
    """Shows rows from an offset on; rows are made only when they are seen."""

    def __init__(self, title: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._note: Row = ()
        self._heading: Row = ()
        self._count = 0
        self._row: Callable[[int], Row] = lambda index: ()
        self._empty = ""
        self.offset_rows = 0
        """Rows scrolled out at the top."""

    def show(
        self,
        count: int,
        row: Callable[[int], Row],
        *,
        heading: Row = (),
        note: Row = (),
        empty: str,
    ) -> None:
        """Replace the rows: how many there are, and how to make one."""
        self._count, self._row = count, row
        self._heading, self._note, self._empty = heading, note, empty
        self._bounded()
        self.repaint()

    def scroll_rows(self, rows: int) -> None:
        """Scroll down by this many rows, or up."""
        self.offset_rows += rows
        self._bounded()
        self.repaint()

    def reveal(self, row: int) -> None:
        """Scroll such that a row is seen, in the middle if it was not."""
        if not self.offset_rows <= row < self.offset_rows + self.page_rows:
            self.offset_rows = row - self.page_rows // 2
            self._bounded()
            self.repaint()

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._count

    @property
    def page_rows(self) -> int:
        """Rows that fit."""
        return max(1, self.content_size.height - 1 - bool(self._heading))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Ask for room for every row, where the height is not given."""
        return 1 + bool(self._heading) + max(1, self._count)

    def paint(self, width: int, height: int) -> list[Row]:
        self._bounded()
        note = list(self._note)
        if self._count > self.page_rows:
            last = min(self._count, self.offset_rows + self.page_rows)
            note.append(Part(f"  {self.offset_rows + 1}-{last} of {self._count}", "dim"))
        title = spread([Part(self._title, "title")], note, width, Part("─", "rule"))
        lines = [title, crop(self._heading, width)] if self._heading else [title]
        if not self._count:
            return [*lines[:1], [Part(self._empty, "dim")]][:height]
        visible = range(self.offset_rows, min(self._count, self.offset_rows + self.page_rows))
        return [*lines, *(crop(self._row(index), width) for index in visible)][:height]

    def _bounded(self) -> None:
        self.offset_rows = max(0, min(self.offset_rows, self._count - self.page_rows))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.scroll_rows(WHEEL_ROWS)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.scroll_rows(-WHEEL_ROWS)
