"""Runs over each other: their returns, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult

from dreamer_async.tui.draw.rows import Part, Row, fit
from dreamer_async.tui.draw.text import count, plain, short
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.compare import differences, settings
from dreamer_async.tui.read.progress import rate
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.listing import Listing

_KEY, _VALUE = 26, 20
_LOOKS = ("line", *pictures.OTHERS)


class Compare(Page):
    """Returns above, one line a run, and the differing settings."""

    def compose(self) -> ComposeResult:
        yield Chart(id="compared-returns")
        yield Listing("runs", id="compared-runs")
        yield Listing("settings that differ", id="differences")

    def show(self, shown: Shown) -> None:
        sources = (shown.source, *shown.others)
        if self.changed("returns", shown.age):
            picture = pictures.returns(shown.view, shown.options, shown.named)
            self.query_one("#compared-returns", Chart).show(picture)
        stand = [(source.view.records, source.phase.name) for source in sources]
        if self.changed("runs", stand):
            self._show_runs(sources)
        if self.changed("settings", [source.run_dir for source in sources]):
            self._show_settings(sources)

    def _show_runs(self, sources: Sequence[Source]) -> None:
        table = self.query_one("#compared-runs", Listing)
        table.styles.height = len(sources) + 2
        heading = (
            f"  {'':{_KEY}} {'phase':<10}{'step':>8}{'updates':>9}{'steps/s':>9}{'mean of 20':>12}"
        )
        table.show(
            len(sources),
            lambda index: _run_row(sources[index], _LOOKS[index % len(_LOOKS)]),
            heading=[Part(heading, "dim")],
            empty="",
        )

    def _show_settings(self, sources: Sequence[Source]) -> None:
        rows = differences([settings(source.run_dir.config_path) for source in sources])
        heading: list[Part] = [Part(f"{'':{_KEY}}  ", "dim")]
        for source, look in zip(sources, _LOOKS, strict=False):
            heading.append(Part(fit(source.label, _VALUE) + " ", look))
        self.query_one("#differences", Listing).show(
            len(rows),
            lambda index: _setting_row(*rows[index]),
            heading=heading,
            empty="none" if len(sources) > 1 else "r adds runs to compare with (space)",
        )

    def move(self, rows: int) -> None:
        self.query_one("#differences", Listing).scroll_rows(rows)

    def turn_page(self, direction: int) -> None:
        table = self.query_one("#differences", Listing)
        table.scroll_rows(direction * table.page_rows)

    def topics(self, view: RunView) -> list[str]:
        return ["episode/score"]


def _run_row(source: Source, look: str) -> Row:
    view = source.view
    mean = view.episodes.rolling_mean(20)
    speed = short(rate(view, "env_steps")) if source.phase.name == "training" else "–"
    text = f" {source.phase.name:<10}{count(view.env_steps):>8}{plain(view.updates):>9}{speed:>9}"
    return [
        Part("━ ", look),
        Part(fit(source.label, _KEY)),
        Part(text, "dim"),
        Part(f"{short(float(mean[-1]) if len(mean) else None):>12}", "strong"),
    ]


def _setting_row(key: str, values: list[str]) -> Row:
    cells = [Part(fit(value, _VALUE) + " ") for value in values]
    return [Part(fit(key, _KEY) + "  ", "dim"), *cells]
