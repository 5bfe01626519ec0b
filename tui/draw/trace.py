"""A curve as points, and which of them can be drawn.

Legend: N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LIMIT = 1e100
"""Larger numbers are drawn as little as infinities are."""


@dataclass(frozen=True)
class Trace:
    """One curve: points [N] in drawing order of their x."""

    x: Array
    y: Array
    low: Array | None = None
    """Smallest value behind each point, where a point stands for several; else y."""
    high: Array | None = None
    kind: Literal["line", "dots"] = "line"

    @cached_property
    def bottom(self) -> Array:
        """Smallest values, [N]."""
        return self.y if self.low is None else self.low

    @cached_property
    def top(self) -> Array:
        """Largest values, [N]."""
        return self.y if self.high is None else self.high

    @cached_property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest value, (inf, -inf) without points; NaN if one of them is."""
        if not len(self.y):
            return math.inf, -math.inf
        return float(self.bottom.min()), float(self.top.max())

    @cached_property
    def breadth(self) -> tuple[float, float]:
        """Smallest and largest x, as `extent`."""
        return (float(self.x.min()), float(self.x.max())) if len(self.x) else (math.inf, -math.inf)

    @cached_property
    def ascending(self) -> bool:
        """Whether every x is at least as large as the one before."""
        return _ascends(self.x)

    def within(self, first: float, last: float) -> Trace:
        """Keep the points from one x to another, with both ends."""
        kept = (self.x >= first) & (self.x <= last)
        low = None if self.low is None else self.low[kept]
        high = None if self.high is None else self.high[kept]
        return Trace(self.x[kept], self.y[kept], low, high, self.kind)


def all_drawable(extent: tuple[float, float], *, positive: bool) -> bool:
    """Tell whether all values of a range have a place on the axis; false for NaN."""
    return extent[0] >= -LIMIT and extent[1] <= LIMIT and (extent[0] > 0 or not positive)


def drawable(values: Array, positive: bool) -> Mask:
    return (np.abs(values) <= LIMIT) & ((values > 0) | (not positive))


def drawable_points(trace: Trace, *, positive: bool) -> tuple[Array, Array, Array, Array]:
    """Return x, y, low, high of the drawable points, ascending in x; low is high without both."""
    points, ascending = (trace.x, trace.y, trace.bottom, trace.top), trace.ascending
    if len(trace.y) and not all_drawable(trace.extent, positive=positive):
        which = drawable(trace.bottom, positive) & drawable(trace.top, positive)
        points = _picked(points, which)
    if len(trace.x) and not all_drawable(trace.breadth, positive=False):
        points = _picked(points, drawable(points[0], False))
        ascending = _ascends(points[0])  # beside a NaN nothing is smaller
    if not ascending:
        points = _picked(points, np.argsort(points[0], kind="stable"))
    x, y, low, high = points
    return x, y, low, low if trace.bottom is trace.top else high


def _ascends(x: Array) -> bool:
    return not (x[1:] < x[:-1]).any()


def _picked(points: tuple[Array, ...], which: NDArray[Any]) -> tuple[Array, Array, Array, Array]:
    x, y, low, high = (part[which] for part in points)
    return x, y, low, high
