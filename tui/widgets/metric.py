"""One number in full: its curve, its unit and what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from dreamer_async.tui.draw.picture import Picture
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.show import pictures, played
from dreamer_async.tui.show.glossary import find
from dreamer_async.tui.show.names import label
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.dialogs import Dialog
from dreamer_async.tui.widgets.panel import Panel


class Paragraph(Panel):
    """Wrapped text."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = ""

    def show(self, text: str) -> None:
        """Replace the text."""
        self._text = text
        self.repaint()
        self.refresh(layout=True)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Ask for as many rows as the text needs."""
        return max(1, len(textwrap.wrap(self._text, max(1, width))))

    def paint(self, width: int, height: int) -> list[Row]:
        lines = textwrap.wrap(self._text, max(1, width))[:height]
        return [(Part(line),) for line in lines]


class MetricScreen(Dialog[None]):
    """Shows one number after the other, and follows it as long as it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,i,q,enter", "dismiss", "Close", show=False),
        Binding("down,j", "turn(1)", "Next", show=False),
        Binding("up,k", "turn(-1)", "Before", show=False),
        Binding("s", "curves('smoothing')", "Smooth", show=False),
        Binding("y", "curves('log_axis')", "Log axis", show=False),
        Binding("x", "curves('across')", "Axis", show=False),
        Binding("plus,equals_sign", "curves('zoom(1)')", "Closer", show=False),
        Binding("minus", "curves('zoom(-1)')", "Wider", show=False),
        Binding("left", "curves('pan(-1, True)')", "Left", show=False),
        Binding("right", "curves('pan(1, True)')", "Right", show=False),
        Binding("E", "export", "Export", show=False),
    ]

    def __init__(
        self,
        shown: Shown,
        topics: Sequence[str],
        *,
        curves: Callable[[str], Awaitable[object]],
        export: Callable[[str], None],
    ) -> None:
        """`curves` does an action of the pages, such as `zoom(1)`; `export` writes a number."""
        super().__init__()
        self._curves, self._export = curves, export
        self._shown = shown
        self._topics = list(topics) or ["episode/score"]
        self._place = 0
        self._age: object = None

    def compose(self) -> ComposeResult:
        with Vertical(id="metric", classes="dialog") as box:
            box.border_subtitle = self.spell("↑ ↓ others  + - ← → zoom  s y x  E csv  esc closes")
            yield Chart(id="metric-chart")
            yield Paragraph(id="metric-text")

    def on_mount(self) -> None:
        self._show()

    def follow(self, shown: Shown) -> None:
        """Draw anew where anything changed."""
        self._shown = shown
        age = shown.age, shown.view.gauges_seen
        if age != self._age and self.is_mounted:
            self._age = age
            self._show()

    def action_turn(self, direction: int) -> None:
        """Turn to the next number, or the one before."""
        self._place = (self._place + direction) % len(self._topics)
        self._show()

    async def action_curves(self, action: str) -> None:
        """Choose how curves are drawn, as on the pages."""
        await self._curves(action)

    def action_export(self) -> None:
        """Write the number that is shown into a file."""
        self._export(self._topics[self._place])

    def _show(self) -> None:
        name = self._topics[self._place]
        meaning = find(name)
        box = self.query_one("#metric", Vertical)
        unit = f" ({meaning.unit})" if meaning else ""
        where = f"{self._place + 1} of {len(self._topics)}"
        box.border_title = Content(f"{name}{unit}  {where}")
        text = meaning.text if meaning else "This trainer's own number; nothing is known about it."
        self.query_one(Chart).show(_picture(self._shown, name))
        self.query_one(Paragraph).show(text)


def _picture(shown: Shown, name: str) -> Picture:
    view, options = shown.view, shown.options
    if name == "episode/score":
        return pictures.returns(view, options, shown.named)
    if name == "episode/length":
        return played.lengths(view, options)
    if name == "evaluation/mean":
        return played.evaluations(view, options)
    if name in view.metrics:
        return pictures.metric(view, name, options, shown.named, labelled=True)
    return pictures.recent(view, name, label(name))
