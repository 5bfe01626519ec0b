"""What a chart or a list of meters shows: plain data, without Textual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dreamer_async.tui.draw.rows import Row
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.show.options import LogMode


@dataclass(frozen=True)
class Curve:
    """A trace and how it looks."""

    trace: Trace
    look: str = "line"
    thick: bool = False
    """Drawn two dots high: what matters most among many dots."""
    mark: str = ""
    """A character that stands on the curve here and there, for terminals with few colours."""


Entry = Sequence[Row]
"""One thing that a legend says: in full, then in fewer words for less room."""


@dataclass(frozen=True)
class Picture:
    """Everything that a chart shows."""

    title: str
    note: str = ""
    """Said in the title row, after the title."""
    short_note: str = ""
    """Said there instead where the note has no room."""
    value: Row = ()
    """Shown at the right end of the title row."""
    brief: Row = ()
    """Shown there instead where `value` has no room."""
    legend: Sequence[Entry] = ()
    """A row of its own below the title, if there is one; the most wanted entries first."""
    curves: Sequence[Curve] = ()
    grounds: Sequence[Curve] = ()
    """Ranges, from `low` to `high`, painted as the ground below the curves."""
    references: Sequence[float] = field(default=())
    """Values that get a dotted line."""
    include: Sequence[float] = field(default=())
    """Values that the axis covers in any case."""
    log: LogMode = "linear"
    unit: str = ""
    """Label the values below the curves, and say this unit."""
    window: tuple[float, float] | None = None
    """Show only what lies between these two values of x."""
    name: str = ""
    """The metric that is drawn, if it is one."""
    empty: str = "no data yet"


class Meter(NamedTuple):
    """One row: a bar with its value, or a value alone where there is no share."""

    label: str
    value: str
    share: float | None = None
    look: str = "bar"
