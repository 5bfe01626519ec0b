"""Short lists of shares and counts: the pipeline's stages, the replay ring."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Size

from dreamer_async.tui.draw.picture import Meter
from dreamer_async.tui.draw.rows import Part, Row, bar, cells, fit, named, spread
from dreamer_async.tui.widgets.panel import Panel

_LABEL = 14
_VALUE = 6


class Meters(Panel):
    """A titled list of meters."""

    def __init__(self, title: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._note: Row = ()
        self._meters: Sequence[Meter] = ()

    def show(self, meters: Sequence[Meter], note: Row = ()) -> None:
        """Replace the rows and what stands at the right end of the title."""
        grown = len(meters) != len(self._meters)
        self._meters, self._note = meters, note
        self.repaint()
        if grown:
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Ask for one row per meter and one for the title."""
        return 1 + len(self._meters)

    def paint(self, width: int, height: int) -> list[Row]:
        title = spread([Part(self._title, "title")], self._note, width, Part("─", "rule"))
        return [title, *(_meter_row(meter, width) for meter in self._meters)][:height]


def _meter_row(meter: Meter, width: int) -> Row:
    if meter.share is None:
        value = Part(named(meter.value, max(0, width - len(meter.label) - 2)))
        return spread([Part(meter.label, "dim")], [value], width)
    label = Part(fit(meter.label, min(_LABEL, width)), "dim")
    room = width - cells([label]) - _VALUE
    value = Part(f"{meter.value:>{_VALUE}}")
    return [label, *(bar(meter.share, room, meter.look) if room > 2 else []), value]
