"""Charts of what was played beside the returns: how long episodes are, and evaluations."""

from __future__ import annotations

import numpy as np

from dreamer_async.tui.draw.picture import Curve, Picture
from dreamer_async.tui.draw.rows import Part
from dreamer_async.tui.draw.text import short
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.options import Options, along, window
from dreamer_async.tui.show.pictures import evaluated


def lengths(view: RunView, options: Options) -> Picture:
    """Length of each episode as a dot, and their rolling mean."""
    series = view.lengths
    x = along(view, series, options.axis)
    dots = Trace(x, series.mean, series.low, series.high, "dots")
    mean = Trace(x, series.rolling_mean(options.smoothing))
    return Picture(
        title="episode length",
        note="agent steps",
        curves=[Curve(dots, "dots"), Curve(mean)] if len(series) else [],
        include=[0.0] if len(series) else [],
        unit=options.unit,
        window=window(view, options),
        empty="no finished episode yet",
        name="episode/length",
    )


def evaluations(view: RunView, options: Options) -> Picture:
    """Mean score of each evaluation, and the range of its scores."""
    means, scores = evaluated(view, options), [done.scores for done in view.evaluations]
    low, high = (np.array([end(each) for each in scores], np.float64) for end in (min, max))
    ranges = Trace(means.x, means.y, low, high, "dots")
    return Picture(
        title="evaluations",
        note="mean and range of the scores",
        short_note="mean, range",
        value=[Part(short(view.evaluations[-1].mean if scores else None), "strong")],
        curves=[Curve(ranges, "dots"), Curve(means, "accent", mark="◆")] if scores else [],
        unit=options.unit,
        window=window(view, options),
        empty="no evaluation yet",
        name="evaluation/mean",
    )
