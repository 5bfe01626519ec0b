"""The base of every widget here: rows of styled text; only rows that changed are drawn anew."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.draw.text import ascii_only

LOOKS = (
    "accent",
    "axis",
    "bad",
    "bar",
    "bar-held",
    "bar-rest",
    "bar-wait",
    "chip-bad",
    "chip-busy",
    "chip-good",
    "chip-quiet",
    "dim",
    "dots",
    "floor",
    "found",
    "found-here",
    "good",
    "ground",
    "ground-2",
    "ground-3",
    "ground-4",
    "ground-published",
    "key",
    "line",
    "line-2",
    "line-3",
    "line-4",
    "reference",
    "rule",
    "strong",
    "tab",
    "tab-open",
    "text",
    "title",
    "warn",
)
COMPONENTS = frozenset(f"panel--{look}" for look in LOOKS)
"""What an app with panels has among its COMPONENT_CLASSES."""


class Panel(Widget):
    """Shows the rows that `paint` returns; there is no markup anywhere on the way.

    The looks belong to the app: giving each of a hundred panels styles for thirty looks was most
    of the time until the first paint.
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip] | None = None
        self._painted = Size(0, 0)
        self._looks: dict[str, Style] = {}

    def paint(self, width: int, height: int) -> list[Row]:
        """Return up to `height` rows for a content area of `width` columns; here none."""
        return []

    def repaint(self) -> None:
        """Paint, and draw the rows that changed; without a place on the screen yet, all of them."""
        before, size = self._strips, self.content_size
        if before is None or self._painted != size or not size:
            self._strips = None
            self.refresh()
            return
        after = self._strips = self._paint(size)
        regions: list[Region] = []
        for y in range(max(len(before), len(after))):
            if before[y : y + 1] != after[y : y + 1]:
                if regions and regions[-1].bottom == y:
                    regions[-1] = regions[-1].grow((0, 0, 1, 0))
                else:
                    regions.append(Region(0, y, size.width, 1))
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        if self._strips is None or self._painted != self.content_size:
            self._strips = self._paint(self.content_size)
        width = self.content_size.width
        return self._strips[y] if y < len(self._strips) else Strip.blank(width, self._style("text"))

    def _paint(self, size: Size) -> list[Strip]:
        self._painted = size
        rows = self.paint(size.width, size.height) if size else []
        return [self._strip(row, size.width) for row in rows]

    def notify_style_update(self) -> None:
        self._strips = None
        self._looks.clear()
        super().notify_style_update()

    def _strip(self, row: Row, width: int) -> Strip:
        if getattr(self.app, "ascii", False):
            row = [Part(ascii_only(text), look) for text, look in row]
        segments = [Segment(text, self._style(look)) for text, look in row if text]
        return Strip(segments).adjust_cell_length(width, self._style("text"))

    def _style(self, look: str | Style) -> Style:
        """Look a style up and lay it on the background of this widget."""
        if isinstance(look, Style):
            return look
        if look not in self._looks:
            name, *grounds = look.split("@")
            styles = self.app.get_component_styles(f"panel--{name}")
            background = self.background_colors[1]
            for ground in grounds:
                background += self.app.get_component_styles(f"panel--{ground}").background
            if styles.has_rule("background"):
                background += styles.background
            colours = (background + styles.color).rich_color, background.rich_color
            self._looks[look] = styles.text_style + Style.from_color(*colours)
        return self._looks[look]
