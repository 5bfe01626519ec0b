"""`python -m dreamer_async.tui.measure`: the dashboard's speed where no terminal shows it, as JSON.

hour RUN     seconds until the newest hour of a run is read and folded
chart N      seconds of one chart of N points, 120 columns wide, from arrays to rows of text
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamer_async.tui.draw.picture import Curve, Picture
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.widgets.chart import Chart

CHART_SIZE = 118, 36
"""Columns and rows of the measured chart."""
REDRAWS = 200


def newest_hour(path: Path) -> list[float]:
    """Read the newest part of a run as the dashboard does before it first shows it."""
    source = Source(path)
    began = time.perf_counter()
    source.open()
    source.read_newest()
    seconds = time.perf_counter() - began
    source.close()
    return [seconds]


def chart_redraws(points: int) -> list[float]:
    """Draw a noisy curve of `points` points anew, with its range and its axes."""
    rng = np.random.default_rng(0)
    x = np.arange(points, dtype=np.float64)
    y = np.cumsum(rng.standard_normal(points))
    chart = Chart()
    chart.picture = Picture("", curves=[Curve(Trace(x, y))], unit="steps")
    chart.paint(*CHART_SIZE)
    return [_seconds(lambda: chart.paint(*CHART_SIZE)) for _ in range(REDRAWS)]


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Print the measured seconds."""
    part, argument = sys.argv[1:]
    times = newest_hour(Path(argument)) if part == "hour" else chart_redraws(int(argument))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
