"""Where the time goes, what limits, and the gauges of the last minutes."""

from __future__ import annotations

from textual.app import ComposeResult

from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures, ranks, stages
from dreamer_async.tui.show.names import STAGES
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.lines import Caption
from dreamer_async.tui.widgets.strips import Strips

CHARTS = (
    ("ratio/actual", "train ratio", "ratio/target"),
    ("policy/lag", "policy lag, updates", ""),
    ("rate/env_steps", "env steps/s", ""),
    ("rate/updates", "updates/s", ""),
    ("replay/sample_age", "sampled age, steps", ""),
    ("memory/rss_gb", "memory, GB", ""),
)
LEAST, TALL = 3, 10
"""Charts that are always there; rows from which on all are."""


class Pipeline(Page):
    """Strips above, charts below."""

    def compose(self) -> ComposeResult:
        yield Strips(id="strips")
        yield Caption("the last ten minutes", id="gauges-caption")
        yield ChartGrid(id="gauges")

    def show(self, shown: Shown) -> None:
        view, phase = shown.view, shown.source.phase
        if not self.changed("all", (shown.source.epoch, view.gauges_seen, phase.name)):
            return
        self.query_one(Strips).show(stages.strips(view), stages.verdict(view, phase))
        self.query_one(Caption).show(*ranks.rows(view))
        grid = self.query_one(ChartGrid)
        wanted = len(CHARTS) if grid.content_size.height >= TALL else LEAST
        room = grid.lay_out(wanted, len(CHARTS))
        grid.show([pictures.recent(view, *chart) for chart in CHARTS[: max(wanted, room)]])

    def topics(self, view: RunView) -> list[str]:
        return [*(name for name, _, _ in CHARTS), *STAGES]
