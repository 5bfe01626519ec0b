"""Every metric as a small chart; one of them is chosen and can be opened."""

from __future__ import annotations

from textual.app import ComposeResult

from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures
from dreamer_async.tui.show.names import ordered
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption


class Losses(Page):
    """Small multiples on the whole screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.chosen = 0
        self._names: list[str] = []

    def compose(self) -> ComposeResult:
        yield Caption("losses", id="losses-caption")
        yield ChartGrid(id="losses-grid")

    def show(self, shown: Shown) -> None:
        if not self.due("grid", (shown.age, self.chosen), shown.now):
            return
        view, options = shown.view, shown.options
        required, optional = pictures.loss_names(view, options)
        self.query_one(Caption).show(pictures.losses_note(options, found=bool(required + optional)))
        grid = self.query_one(ChartGrid)
        room = max(len(required), grid.lay_out(len(required), len(required) + len(optional)))
        self._names = (required + optional)[:room]
        self.chosen = max(0, min(self.chosen, len(self._names) - 1))
        name = self._names[self.chosen] if self._names else ""
        grid.show(pictures.losses(view, options, room, shown.named, name))

    def move(self, rows: int) -> None:
        """Choose the next chart, or the one before."""
        if self._names:
            self.chosen = (self.chosen + rows) % len(self._names)
            self.forget()

    def topics(self, view: RunView) -> list[str]:
        names = self._names[self.chosen :] + self._names[: self.chosen]
        return [*names, *(name for name in ordered(view.metrics) if name not in names)]
