"""What happened, in words, newest last, with a filter by level; words in it can be found."""

from __future__ import annotations

import os
from pathlib import Path

from textual.app import ComposeResult

from dreamer_async.store.regular_file import reading
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import clean, clock
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import LogLine, RunView
from dreamer_async.tui.show.find import Span, broken, occurrences
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.listing import Listing

LEVELS = ("info", "warning", "error")
_LOOKS = {"warning": "warn", "error": "bad"}
TAIL_BYTES = 8192
_TIME, _LEVEL = 16, 8
"""Columns in front of the text."""


class Log(Page):
    """Events, and the last words of a trainer that failed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.level = LEVELS[0]
        """The least important level that is shown."""
        self.words: str | None = ""
        self._lines: list[LogLine] = []
        self._rows: list[Span] = []
        """The piece of a line in each row: long lines take several."""
        self._matches: list[Span] = []
        self._here: Span | None = None
        """The match that one is at."""

    def compose(self) -> ComposeResult:
        yield Listing("log", id="log-lines")

    def show(self, shown: Shown) -> None:
        view, phase = shown.view, shown.source.phase
        newest = view.log[-1] if view.log else None
        key = (shown.source.epoch, len(view.log), newest, self.level, phase.name)
        if not self.changed("all", (*key, self.size.width, self.words, self._here)):
            return
        self._lines = [line for line in view.log if _passes(line, self.level)]
        if phase.name in ("failed", "lost"):
            self._lines += last_words(shown.source.run_dir.log_path)
        texts = [line.text for line in self._lines]
        room = max(8, self.size.width - _TIME - _LEVEL - 1)  # a space may stand out
        self._rows = [Span(n, *part) for n, text in enumerate(texts) for part in broken(text, room)]
        self._matches = self._find(self.words or "")
        table = self.query_one(Listing)
        at_end = table.offset_rows + table.page_rows >= table.count
        table.show(len(self._rows), self._row, note=self._note(), empty="nothing of this level")
        if at_end and self._here is None:
            table.scroll_rows(len(self._rows))

    def _note(self) -> list[Part]:
        """What is left out, and where one is among what was found."""
        note = [] if self.level == "info" else [Part(f"{self.level}s and worse", "warn")]
        if not self.words:
            return note
        found = len(self._matches)
        at = next((n for n, match in enumerate(self._matches, 1) if match == self._here), 0)
        where = f"{at} of {found} (n, N)" if found else "in no line"
        look = "strong" if found else "warn"
        return [*note, Part(f"  /{self.words}  ", "dim"), Part(where, look)]

    def next_level(self) -> None:
        """Choose the next level of importance."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]
        self._here = None

    def find(self, words: str) -> None:
        """Look for words, from the match on that one is at, or else from the top of the screen."""
        self.words, before = words, self._here
        self._here = None
        found = self._find(words)
        if found and self._rows:
            top = self._rows[min(self.query_one(Listing).offset_rows, len(self._rows) - 1)]
            below = (match for match in found if match[:2] >= (before or top)[:2])
            self._go_to(next(below, found[-1]))

    def _find(self, words: str) -> list[Span]:
        return [
            Span(number, *place)
            for number, line in enumerate(self._lines)
            for place in occurrences(line.text, words)
        ]

    def next_match(self, direction: int) -> None:
        """Go to the match below, or to the one above; round the ends."""
        if self._matches:
            known = self._here in self._matches
            place = self._matches.index(self._here) + direction if known and self._here else 0
            self._go_to(self._matches[place % len(self._matches)])

    def _go_to(self, match: Span) -> None:
        self._here = match
        rows = (n for n, row in enumerate(self._rows) if _meets(row, match))
        self.query_one(Listing).reveal(next(rows, 0))

    def move(self, rows: int) -> None:
        self.query_one(Listing).scroll_rows(rows)

    def turn_page(self, direction: int) -> None:
        table = self.query_one(Listing)
        table.scroll_rows(direction * table.page_rows)

    def topics(self, view: RunView) -> list[str]:
        return ["opt/skipped", "opt/finite", "disk/free_gb"]

    def _row(self, index: int) -> Row:
        row = self._rows[index]
        line = self._lines[row.line]
        head = [Part(" " * (_TIME + _LEVEL))]
        if not row.start:
            when = clock(line.time, "%m-%d %H:%M:%S") if line.time else ""
            level = Part(f"{line.level:<{_LEVEL}}", _LOOKS.get(line.level, "dim"))
            head = [Part(f"{when:{_TIME}}", "dim"), level]
        return [*head, *self._marked(row, line.text)]

    def _marked(self, row: Span, text: str) -> Row:
        """A piece of a line, with the parts of it that were looked for."""
        parts, at = [], row.start
        for match in self._matches:
            if _meets(row, match):
                start, stop = max(row.start, match.start), min(row.stop, match.stop)
                look = "found-here" if match == self._here else "found"
                parts += [Part(text[at:start]), Part(text[start:stop], look)]
                at = stop
        return [*parts, Part(text[at : row.stop])]


def _meets(row: Span, match: Span) -> bool:
    """Tell whether a part of a match is in a row."""
    return row.line == match.line and row.start < match.stop and match.start < row.stop


def _passes(line: LogLine, level: str) -> bool:
    """Tell whether a line is important enough; unknown levels are."""
    known = LEVELS.index(line.level) if line.level in LEVELS else len(LEVELS)
    return known >= LEVELS.index(level)


def last_words(path: Path) -> list[LogLine]:
    """The end of log.txt, where a trainer that failed says why."""
    try:
        file = reading(path)
    except OSError:
        return []
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read(TAIL_BYTES).decode(errors="replace").splitlines()[-30:]
    return [LogLine("log.txt", clean(line, 300), 0.0) for line in lines if line.strip()]
