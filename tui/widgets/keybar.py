"""The bottom row: pages on the left, the most wanted keys on the right; both can be clicked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from textual.events import Click

from dreamer_async.tui.draw.rows import Part, Row, cells
from dreamer_async.tui.widgets.panel import Panel


class Key(NamedTuple):
    """A key, its word, and the action that a click runs."""

    key: str
    word: str
    action: str


LEAST = 5
"""Keys that are always there: help, leaving, holding, saving, stopping."""


def _size(key: Key) -> int:
    """Columns of an entry."""
    return len(key.key) + len(key.word) + 2 + bool(key.word)


class KeyBar(Panel):
    """Shows pages and keys.

    Where the first LEAST keys do not fit beside the pages, only the open page has its name; what
    does not fit even so is left out from the end.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pages: Sequence[Key] = ()
        self._current = ""
        self._keys: Sequence[Key] = ()
        self._places: list[tuple[int, int, str]] = []

    def show(self, pages: Sequence[Key], current: str, keys: Sequence[Key]) -> None:
        """Replace what is shown; `current` is the word of the page that is open."""
        if (pages, current, keys) != (self._pages, self._current, self._keys):
            self._pages, self._current, self._keys = pages, current, keys
            self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        self._places = []
        row: list[Part] = []
        wanted = sum(map(_size, (*self._pages, *self._keys[:LEAST])))
        for page in self._pages:
            known = page.word == self._current
            shown = page if known or wanted <= width else page._replace(word="")
            self._add(row, shown, "tab-open" if known else "tab", width)
        keys: list[Key] = []
        room = width - cells(row)
        for key in self._keys:
            room -= _size(key)
            if room < 0:
                break
            keys.append(key)
        used = sum(map(_size, keys))
        row.append(Part(" " * max(0, width - cells(row) - used)))
        for key in keys:
            self._add(row, key, "text", width)
        return [row]

    def _add(self, row: list[Part], key: Key, look: str, width: int) -> None:
        """Append one entry and remember where it stands."""
        start = cells(row)
        if start + _size(key) > width:
            return
        if look == "tab-open":
            row.append(Part(f" {key.key} {key.word} ", look))
        else:
            word = f" {key.word}" if key.word else ""
            row += [Part(" "), Part(key.key, "key"), Part(word, look), Part(" ")]
        self._places.append((start, cells(row), key.action))

    async def on_click(self, event: Click) -> None:
        """Run the action of the entry below the mouse."""
        for start, stop, action in self._places:
            if start <= event.x < stop:
                await self.screen.run_action(action)
                return
