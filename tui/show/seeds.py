"""Runs that differ in nothing but the seed, as one: their mean, and how far it may be trusted.

Legend: R runs of a group, T points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreamer_async.scores.bands import MeanBand, band
from dreamer_async.tui.draw.picture import Curve, Picture
from dreamer_async.tui.draw.text import short
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.series import Array
from dreamer_async.tui.show.groups import Group
from dreamer_async.tui.show.options import Options, along, window

GROUNDS = ("ground", "ground-2", "ground-3", "ground-4")
"""One for each look of a group."""
POINTS = 256
"""T of a mean."""


def returns(groups: Sequence[Group], options: Options) -> Picture:
    """Mean return of each group over its seeds, with the interval of that mean as the ground."""
    curves, grounds = [], []
    for group in groups:
        found = mean_return(group, options)
        if found is None:
            continue
        x, mean = found
        if len(group.sources) > 1:
            ground = GROUNDS[group.place]
            grounds.append(Curve(Trace(x, *mean), ground))
        curves.append(Curve(Trace(x, mean.mean), group.look, mark=group.mark))
    notes = [f"mean of {options.smoothing} episodes"] if options.smoothing > 1 else []
    if grounds:
        notes.append("band: 95 % bootstrap interval over seeds")
    return Picture(
        title="returns",
        note="; ".join(notes),
        curves=curves[::-1],
        grounds=grounds,
        unit=options.unit,
        window=window(groups[0].sources[0].view, options),
        empty="no finished episode yet",
        name="episode/score",
    )


def mean_return(group: Group, options: Options) -> tuple[Array, MeanBand] | None:
    """Where all runs of a group have been, [T], and the mean of their rolling means there.

    None before each of them has an episode there.
    """
    runs = []
    for source in group.sources:
        series = source.view.episodes
        if not len(series):
            return None
        x = along(source.view, series, options.axis)
        runs.append((x, series.rolling_mean(options.smoothing)))
    if len(runs) == 1:
        ((x, mean),) = runs
        return x, MeanBand(mean, mean, mean)
    first, last = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    if first > last:
        return None
    x = np.linspace(first, last, POINTS)
    return x, band(np.array([np.interp(x, *run) for run in runs]))


def newest(group: Group, episodes: int = 20) -> str:
    """Mean return over the last episodes of each run, and its interval over the seeds."""
    means = [source.view.episodes.rolling_mean(episodes) for source in group.sources]
    known = np.array([mean[-1] for mean in means if len(mean)])
    if not len(known):
        return short(None)
    ((mean,), (low,), (high,)) = band(known[:, None])
    if len(known) < 2:
        return short(mean)
    return f"{short(mean)} [{short(low)}, {short(high)}]"
