"""The whole run on one screen; low terminals turn to the losses for those."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures, stages
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption
from dreamer_async.tui.widgets.meters import Meters

SPEEDS = (("rate/env_steps", "env steps/s"), ("rate/updates", "updates/s"))
"""Drawn where a large terminal leaves room."""


class Overview(Page):
    """Returns, losses, the return scale, the pipeline and the replay."""

    def compose(self) -> ComposeResult:
        with Horizontal():
            with Vertical(classes="left"):
                yield Chart(id="returns")
                yield Caption("losses", id="caption")
                yield ChartGrid(id="small-losses")
            with Vertical(classes="right"):
                yield Chart(id="scale")
                yield ChartGrid(id="speeds")
                yield Meters("pipeline", id="meters")
                yield Meters("replay", id="replay")

    def show(self, shown: Shown) -> None:
        view, options = shown.view, shown.options
        if self.due("gauges", (shown.source.epoch, view.gauges_seen), shown.now):
            self.query_one("#meters", Meters).show(stages.pipeline(view))
            self.query_one("#replay", Meters).show(stages.replay(view))
            self._show_speeds(view)
        if self.due("curves", shown.age, shown.now):
            self.query_one("#returns", Chart).show(pictures.returns(view, options, shown.named))
            self.query_one("#scale", Chart).show(pictures.scale(view, options))
            self._show_losses(shown)

    def _show_speeds(self, view: RunView) -> None:
        grid = self.query_one("#speeds", ChartGrid)
        if grid.display:
            grid.lay_out(len(SPEEDS), len(SPEEDS))
            grid.show([pictures.recent(view, name, title) for name, title in SPEEDS])

    def _show_losses(self, shown: Shown) -> None:
        grid = self.query_one("#small-losses", ChartGrid)
        if not grid.display:
            return
        self.query_one(Caption).show(pictures.losses_note(shown.options))
        required, optional = map(len, pictures.loss_names(shown.view, shown.options))
        room = grid.lay_out(required, required + optional)
        grid.show(pictures.losses(shown.view, shown.options, room, shown.named))

    def topics(self, view: RunView) -> list[str]:
        return ["episode/score", "return/S", "replay/fill", "ratio/actual"]
