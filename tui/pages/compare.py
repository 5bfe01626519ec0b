"""Runs over each other: their returns, those of several seeds as one, and how they are set up."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult

from dreamer_async.tui.draw.rows import Part, Row, fit, fit_ends
from dreamer_async.tui.draw.text import count, plain, short
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.compare import SEED, differences
from dreamer_async.tui.read.progress import rate
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import seeds
from dreamer_async.tui.show.groups import Group
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.listing import Listing

_KEY, _VALUE = 26, 20
_MOST_RUNS = 10
"""Rows of the table of runs, which can be scrolled beyond."""
_TABLES = ("compared-runs", "differences")
_PICK = "r, then space, picks runs to compare with"


class Compare(Page):
    """Returns above, one line a run, and the differing settings."""

    def compose(self) -> ComposeResult:
        yield Chart(id="compared-returns")
        yield Listing("runs", id="compared-runs")
        yield Listing("settings that differ", id="differences")

    def show(self, shown: Shown) -> None:
        groups = shown.groups
        if self.due("returns", shown.age, shown.now):
            self.query_one("#compared-returns", Chart).show(seeds.returns(groups, shown.options))
        sources = [source for group in groups for source in group.sources]
        stand = [(source.run_dir, source.view.records, source.phase.name) for source in sources]
        if self.changed("runs", stand):
            self._show_runs(groups)
        if self.changed("settings", [(source.run_dir, source.settings) for source in sources]):
            self._show_settings(groups)

    def _show_runs(self, groups: Sequence[Group]) -> None:
        rows = [row for group in groups for row in _group_rows(group)]
        table = self.query_one("#compared-runs", Listing)
        table.styles.height = min(_MOST_RUNS, len(rows)) + 2
        names = f"{'phase':<10}{'step':>8}{'updates':>9}{'steps/s':>9}{'mean of 20':>12}"
        heading = [Part(f"  {'':{_KEY}} {names}", "dim")]
        note = [] if len(rows) > 1 else [Part(_PICK, "accent")]
        table.show(len(rows), rows.__getitem__, heading=heading, note=note, empty="")

    def _show_settings(self, groups: Sequence[Group]) -> None:
        """Settings of each group; the seed is no difference between groups of several."""
        rows = differences([group.sources[0].settings for group in groups])
        if any(len(group.sources) > 1 for group in groups):
            rows = [row for row in rows if row[0] != SEED]
        heading: list[Part] = [Part(f"{'':{_KEY}}  ", "dim")]
        for group in groups:
            heading.append(Part(fit_ends(group.label, _VALUE) + " ", group.look))
        table = self.query_one("#differences", Listing)
        table.show(
            len(rows),
            lambda index: _setting_row(*rows[index]),
            heading=heading,
            empty="none" if len(groups) > 1 else _PICK,
        )
        table.refresh(layout=True)

    def move(self, rows: int) -> None:
        self.query_one("#differences", Listing).scroll_rows(rows)

    def turn_page(self, direction: int) -> None:
        runs, settings = (self.query_one(f"#{name}", Listing) for name in _TABLES)
        table = runs if runs.count > runs.page_rows else settings
        table.scroll_rows(direction * table.page_rows)

    def topics(self, view: RunView) -> list[str]:
        return ["episode/score"]


def _group_rows(group: Group) -> list[Row]:
    """One line for a run, or one for all and one for each of several seeds."""
    if len(group.sources) == 1:
        return [_run_row(group.sources[0], group.key)]
    head: Row = [
        group.key,
        Part(group.title, "strong"),
        Part("  mean over seeds [95 %] ", "dim"),
        Part(seeds.newest(group), "strong"),
    ]
    return [head, *(_run_row(source, Part("· ", "dim")) for source in group.sources)]


def _run_row(source: Source, key: Part) -> Row:
    view = source.view
    mean = view.episodes.rolling_mean(20)
    speed = short(rate(view, "env_steps")) if source.phase.name == "training" else "–"
    text = f" {source.phase.name:<10}{count(view.env_steps):>8}{plain(view.updates):>9}{speed:>9}"
    return [
        key,
        Part(fit_ends(source.label, _KEY)),
        Part(text, "dim"),
        Part(f"{short(float(mean[-1]) if len(mean) else None):>12}", "strong"),
    ]


def _setting_row(key: str, values: list[str]) -> Row:
    cells = [Part(fit(value, _VALUE) + " ") for value in values]
    return [Part(fit(key, _KEY) + "  ", "dim"), *cells]
