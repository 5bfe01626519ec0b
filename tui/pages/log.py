"""What happened, in words, newest last, with a filter by level."""

from __future__ import annotations

import os
from pathlib import Path

from textual.app import ComposeResult

from dreamer_async.store.regular_file import reading
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import clean, clock
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import LogLine, RunView
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.listing import Listing

LEVELS = ("info", "warning", "error")
_LOOKS = {"warning": "warn", "error": "bad"}
TAIL_BYTES = 8192


class Log(Page):
    """Events, and the last words of a trainer that failed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.level = LEVELS[0]
        """The least important level that is shown."""
        self._lines: list[LogLine] = []
        self._followed = True

    def compose(self) -> ComposeResult:
        yield Listing("log", id="log-lines")

    def show(self, shown: Shown) -> None:
        view, phase = shown.view, shown.source.phase
        newest = view.log[-1] if view.log else None
        key = (shown.source.epoch, len(view.log), newest, self.level, phase.name)
        if not self.changed("all", key):
            return
        self._lines = [line for line in view.log if _passes(line, self.level)]
        if phase.name in ("failed", "lost"):
            self._lines += last_words(shown.source.run_dir.log_path)
        note = [] if self.level == "info" else [Part(f"{self.level}s and worse", "warn")]
        table = self.query_one(Listing)
        at_end = table.offset_rows + table.page_rows >= table.count
        table.show(len(self._lines), self._row, note=note, empty="nothing of this level")
        if at_end:
            table.scroll_rows(len(self._lines))

    def next_level(self) -> None:
        """Choose the next level of importance."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]

    def move(self, rows: int) -> None:
        self.query_one(Listing).scroll_rows(rows)

    def turn_page(self, direction: int) -> None:
        table = self.query_one(Listing)
        table.scroll_rows(direction * table.page_rows)

    def topics(self, view: RunView) -> list[str]:
        return ["opt/skipped", "opt/finite", "disk/free_gb"]

    def _row(self, index: int) -> Row:
        line = self._lines[index]
        when = clock(line.time, "%m-%d %H:%M:%S") if line.time else ""
        return [
            Part(f"{when:14}  ", "dim"),
            Part(f"{line.level:<8}", _LOOKS.get(line.level, "dim")),
            Part(line.text),
        ]


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
