"""Every metric as a small chart, in groups and pages; one of them is chosen and can be opened."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult

from dreamer_async.tui.draw.rows import Part, cells
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import pictures
from dreamer_async.tui.show.names import GROUPS, grouped, matching, required_charts
from dreamer_async.tui.show.options import Options
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.lines import Caption
from dreamer_async.tui.widgets.sections import Section, Sections, page_of


class Losses(Page):
    """Small multiples on the whole screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.chosen = 0
        """Number of the chart that is chosen, among all."""
        self._names: list[str] = []
        self._pages: list[list[Section]] = []

    def compose(self) -> ComposeResult:
        yield Caption("losses", id="losses-caption")
        yield Sections(len(GROUPS), id="losses-sections")

    def show(self, shown: Shown) -> None:
        if not self.due("grid", (shown.age, self.chosen), shown.now):
            return
        groups = metric_groups(shown.view, shown.options)
        self._names = [name for _, names in groups for name in names]
        self.chosen = max(0, min(self.chosen, len(self._names) - 1))
        sections = self.query_one(Sections)
        self._pages = sections.lay_out([(title, len(names)) for title, names in groups])
        page = self._pages[page_of(self.chosen, self._pages)] if groups else []
        self._show_note(shown.options, page)
        sections.show(page, [self._picture(shown, name) for name in self._on(page)])

    def _show_note(self, options: Options, page: Sequence[Section]) -> None:
        """Which of all metrics these are, and how they are drawn, as far as there is room."""
        *parts, (how, look) = pictures.losses_note(options, found=bool(page))
        if len(self._pages) > 1:
            which = f"{page[0].first + 1}-{page[-1].stop} of {len(self._names)}"
            parts = [Part(which, "strong"), Part(" · ", "dim"), *parts]
        room = self.size.width - len("losses") - 3
        if cells([*parts, Part(how)]) > room:
            how = how.replace(" over min and max", "")
        words = how.split(" · ")
        while len(words) > 1 and cells([*parts, Part(" · ".join(words))]) > room:
            del words[-2]  # the axis, which has a key, stays to the last
        self.query_one(Caption).show([*parts, Part(" · ".join(words), look)])

    def _on(self, page: Sequence[Section]) -> list[str]:
        return self._names[page[0].first : page[-1].stop] if page else []

    def _picture(self, shown: Shown, name: str) -> pictures.Picture:
        chosen = name == self._names[self.chosen]
        return pictures.metric(shown.view, name, shown.options, shown.named, chosen=chosen)

    def move(self, rows: int) -> None:
        """Choose the next chart, or the one before."""
        if self._names:
            self.chosen = (self.chosen + rows) % len(self._names)
            self.forget()

    def turn_page(self, direction: int) -> None:
        """Choose the first chart of another page."""
        if self._pages and self._pages[0]:
            page = page_of(self.chosen, self._pages) + direction
            self.chosen = self._pages[max(0, min(page, len(self._pages) - 1))][0].first
            self.forget()

    def topics(self, view: RunView) -> list[str]:
        return self._names[self.chosen :] + self._names[: self.chosen]


def metric_groups(view: RunView, options: Options) -> list[tuple[str, list[str]]]:
    """The metrics to draw, by what they are about; before there is one, those that will be."""
    if options.filter:
        return grouped(matching(view.latest, options.filter))
    return grouped(view.latest or required_charts(()))
