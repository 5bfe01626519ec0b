"""What every page is: a container that shows runs, and skips what did not change."""

from __future__ import annotations

from textual.containers import Container

from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.shown import Shown

CALM_SECONDS = 0.9
"""Between two looks at all curves of a page; a little less than two paints take."""


class Page(Container):
    """One of the pages; its id is its name."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.playing = True
        """Whether what can move does."""
        self.words: str | None = None
        """What is looked for, on a page that is for reading; None on others."""
        self._seen: dict[str, object] = {}
        self._drawn: dict[str, float] = {}

    def show(self, shown: Shown) -> None:
        """Bring the page up to date."""

    def forget(self) -> None:
        """Draw everything anew next time."""
        self._seen.clear()

    def changed(self, part: str, key: object) -> bool:
        """Tell whether a part has to be drawn anew, and remember that it was."""
        if self._seen.get(part) == key:
            return False
        self._seen[part] = key
        return True

    def due(self, part: str, key: object, now: float) -> bool:
        """As `changed`, but at most once in CALM_SECONDS; after `forget` at once.

        A trainer says its numbers once a second: many curves need not be drawn more often.
        """
        if part in self._seen and 0 <= now - self._drawn[part] < CALM_SECONDS:
            return False
        if not self.changed(part, key):
            return False
        self._drawn[part] = now
        return True

    def topics(self, view: RunView) -> list[str]:
        """Numbers that this page is about, the most wanted first."""
        return []

    def move(self, rows: int) -> None:
        """Move up or down in what can be moved in."""

    def turn_page(self, direction: int) -> None:
        """Move by as much as fits."""

    @property
    def moving(self) -> bool:
        """Tell whether there is anything to play."""
        return False

    def advance(self) -> None:
        """Show the next frame of what moves."""

    def next_source(self) -> None:
        """Show the next of several things that the page can show."""

    def next_level(self) -> None:
        """Choose the next level of importance."""

    def find(self, words: str) -> None:
        """Mark words in what is read here, and go to one of them."""

    def next_match(self, direction: int) -> None:
        """Go to the next of the words that were looked for, or to the one before."""

    def pan(self, direction: int) -> bool:
        """Move left or right; False if the page leaves that to the curves."""
        return False
