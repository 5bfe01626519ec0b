"""What the person at the keyboard chose: how curves are drawn and which part of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from dreamer_async.tui.read.progress import goal
from dreamer_async.tui.read.series import Array, Axis, Series
from dreamer_async.tui.read.view import RunView

LogMode = Literal["auto", "linear", "log"]
Across = Literal["steps", "frames", "updates", "time"]

SMOOTHINGS = (20, 100, 500, 1)
"""How many episodes or metrics events a line averages; 1 draws them as they are."""
LOG_MODES: tuple[LogMode, ...] = ("auto", "log", "linear")
AXES: tuple[Across, ...] = ("steps", "frames", "updates", "time")
OF_RECORDINGS: tuple[Across, ...] = ("updates", "time")
"""Axes of a run that learns from what was recorded: its steps stand still."""
UNITS = {"steps": "steps", "frames": "frames", "updates": "updates", "time": "hours"}
_SERIES: dict[Across, Axis] = {
    "steps": "steps",
    "frames": "steps",
    "updates": "updates",
    "time": "time",
}
SMALLEST = 1 / 4096
"""Smallest visible share of a run."""


@dataclass(frozen=True)
class Zoom:
    """The visible part of a run, as shares of all of it so far; the newest end is followed."""

    span: float = 1.0
    end: float = 1.0

    @property
    def everything(self) -> bool:
        """Tell whether nothing is hidden."""
        return self.span >= 1.0

    def closer(self) -> Zoom:
        """Show half as much: the newest half, or the middle one after panning."""
        return self._sized(max(SMALLEST, self.span / 2))

    def wider(self) -> Zoom:
        """Show twice as much."""
        return self._sized(min(1.0, self.span * 2))

    def moved(self, direction: int) -> Zoom:
        """Pan by a quarter of what is visible, not beyond the ends."""
        return Zoom(self.span, min(1.0, max(self.span, self.end + direction * self.span / 4)))

    def _sized(self, span: float) -> Zoom:
        end = self.end if self.end >= 1.0 else self.end + (span - self.span) / 2
        return Zoom(span, min(1.0, max(span, end)))


@dataclass(frozen=True)
class Options:
    """How curves are drawn."""

    smoothing: int = SMOOTHINGS[0]
    log: LogMode = "auto"
    axis: Across = "steps"
    zoom: Zoom = field(default_factory=Zoom)
    filter: str = ""
    """Words; only metrics with one of them in their name or label are drawn."""

    @property
    def unit(self) -> str:
        """What the axis below the curves counts."""
        return UNITS[self.axis]


def axes(view: RunView) -> tuple[Across, ...]:
    """What the curves of a run can be drawn over, the usual one first."""
    return OF_RECORDINGS if goal(view).unit == "updates" else AXES


def suited(options: Options, view: RunView) -> Options:
    """The options with the usual axis of a run where it has not the chosen one."""
    known = axes(view)
    return options if options.axis in known else replace(options, axis=known[0])


def along(view: RunView, series: Series, axis: Across) -> Array:
    """Where each bucket of a series stands on the chosen axis, [N]."""
    return series.along(_SERIES[axis]) * _factor(view, axis)


def window(view: RunView, options: Options) -> tuple[float, float] | None:
    """The visible range of the chosen axis; None for all of it."""
    zoom = options.zoom
    if zoom.everything:
        return None
    far = {
        "steps": float(view.env_steps),
        "frames": float(view.env_steps),
        "updates": float(view.updates),
        "time": view.clock.ran,
    }[options.axis] * _factor(view, options.axis)
    return (zoom.end - zoom.span) * far, zoom.end * far


def frames_per_step(view: RunView) -> int:
    """Environment frames in one agent step."""
    return max(1, view.started.frames_per_step) if view.started else 1


def _factor(view: RunView, axis: Across) -> float:
    return {"frames": float(frames_per_step(view)), "time": 1 / 3600}.get(axis, 1.0)
