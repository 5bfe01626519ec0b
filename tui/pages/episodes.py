"""The newest episodes and evaluations, and how scores and lengths are spread."""

from __future__ import annotations

import numpy as np
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from dreamer_async.tui.draw.picture import Meter
from dreamer_async.tui.draw.rows import Part, Row, bar, cells
from dreamer_async.tui.draw.text import clock, count, plural, short
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.played import lengths
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.listing import Listing
from dreamer_async.tui.widgets.meters import Meters

_HEADING = f"{'#':>5} {'ended':>8} {'step':>6} {'env':>4} {'score':>7} {'length':>6}"
_SPANS = (20, 100, 1000)


class Episodes(Page):
    """A table on the left, summaries on the right."""

    def compose(self) -> ComposeResult:
        with Horizontal():
            with Vertical(classes="left"):
                yield Listing("episodes", id="episode-table")
                yield Listing("evaluations", id="evaluation-table")
            with Vertical(classes="right"):
                yield Meters("scores", id="scores")
                yield Chart(id="lengths")

    def show(self, shown: Shown) -> None:
        if self.changed("all", shown.age):
            self._show_tables(shown.view)
            self.query_one("#scores", Meters).show(_scores(shown.view))
            self.query_one("#lengths", Chart).show(lengths(shown.view, shown.options))

    def _show_tables(self, view: RunView) -> None:
        rows = view.rows
        known = [row.score for row in rows if row.score is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        table = self.query_one("#episode-table", Listing)
        table.show(
            len(rows),
            lambda index: episode_row(view, index, low, high, table.content_size.width),
            heading=[Part(_HEADING, "dim")],
            empty="no finished episode yet",
        )
        evaluations = self.query_one("#evaluation-table", Listing)
        evaluations.show(
            len(view.evaluations),
            lambda index: _evaluation_row(view, index),
            empty="press e to play ten",
        )

    def move(self, rows: int) -> None:
        self.query_one("#episode-table", Listing).scroll_rows(rows)

    def turn_page(self, direction: int) -> None:
        table = self.query_one("#episode-table", Listing)
        table.scroll_rows(direction * table.page_rows)

    def topics(self, view: RunView) -> list[str]:
        return ["episode/score", "episode/length", "evaluation/mean"]


def episode_row(view: RunView, index: int, low: float, high: float, width: int) -> Row:
    """The newest episode first; the bar stands between the worst and the best of the table."""
    row = view.rows[-1 - index]
    ended = clock(row.time, "%H:%M:%S")
    text = f"{count(row.number):>5} {ended:>8} {count(row.env_steps):>6} {row.env_id:>4} "
    share = 0.0 if row.score is None or high <= low else (row.score - low) / (high - low)
    score, length = f"{short(row.score):>7}", f" {count(row.length):>6}  "
    numbers = [Part(text, "dim"), Part(score, "strong"), Part(length)]
    room = width - cells(numbers)
    return [*numbers, *(bar(share, room) if room > 2 else [])]


def _evaluation_row(view: RunView, index: int) -> Row:
    done = view.evaluations[-1 - index]
    ended = clock(done.time, "%H:%M:%S")
    low, high = short(min(done.scores)), short(max(done.scores))
    return [
        Part(f"{ended:>8}  update {count(done.updates):>6}  ", "dim"),
        Part(f"mean {short(done.mean)}", "strong"),
        Part(f"  {low} to {high}, {plural(len(done.scores), 'episode')}", "dim"),
    ]


def _scores(view: RunView) -> list[Meter]:
    """Mean, median and range over the last episodes."""
    known = [row.score for row in view.rows if row.score is not None]
    meters = [Meter("last", short(known[-1] if known else None))]
    for span in _SPANS:
        part = known[-span:]
        if len(part) < span and span != _SPANS[0]:
            continue
        mean = float(np.mean(part)) if part else None
        meters.append(Meter(f"mean of {min(span, len(part))}", short(mean)))
    if known:
        newest = np.array(known[-100:])
        middle = ", ".join(short(float(q)) for q in np.percentile(newest, (25, 50, 75)))
        meters.append(Meter("quartiles", middle))
        meters.append(Meter("range", f"{short(float(newest.min()))}, {short(float(newest.max()))}"))
    meters.append(Meter("best", short(view.best_score)))
    meters.append(Meter("episodes", count(view.episode_count)))
    return meters
