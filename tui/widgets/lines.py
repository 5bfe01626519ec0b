"""One-row panels: a section's title, the line of alerts."""

from __future__ import annotations

from collections.abc import Callable

from dreamer_async.tui.draw.picture import Entry
from dreamer_async.tui.draw.rows import Part, Row, cells, spread
from dreamer_async.tui.widgets.panel import Panel


class Caption(Panel):
    """A title with a rule behind it and a note at its end."""

    def __init__(self, title: str, look: str = "title", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title, self._look = title, look
        self._notes: Entry = ((),)

    def name_it(self, title: str) -> None:
        """Replace the title."""
        self._title = title
        self.repaint()

    def show(self, *notes: Row) -> None:
        """Replace the note: in full, then in fewer words for less room."""
        self._notes = notes
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        title = [Part(self._title, self._look)]
        room = width - cells(title) - 1
        note = next((note for note in self._notes if cells(note) <= room), self._notes[-1])
        return [spread(title, note, width, Part("─", "rule"))]


class Legend(Panel):
    """Which colour is which run, where there are several."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._row: Callable[[int], Row] = lambda width: ()

    def show(self, row: Callable[[int], Row]) -> None:
        """Replace what makes the row for so many columns."""
        self._row = row
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        return [self._row(width)]


class AlertLine(Panel):
    """What a person should know, and what is saved."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Entry = ((),)
        self._right: Row = ()

    def show(self, left: Entry, right: Row) -> None:
        """Replace both ends; the left one in full, then in fewer words for less room."""
        self._left, self._right = left, right
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        """The right end goes before a word of the left one does."""
        for right in (self._right, ()):
            for left in self._left:
                if cells(left) + bool(right) + cells(right) <= width:
                    return [spread(left, right, width)]
        return [spread(self._left[-1], (), width)]
