"""How often a run lies outside of all others in the same settings.

    python -m dreamer_async.scores.overlap UPDATES FILE.csv...

Losses are averaged in windows of so many updates. In a window a run is outside if it is smaller or
larger than all others. Of R runs that differ by chance alone each is outside in 2 of R windows on
average; one that learns something else is outside nearly always.

Legend: R runs, W windows.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamer_async.scores.learning import LOSSES, Curve, read_curves
from dreamer_async.scores.pictures import Array, binned


class Outside(NamedTuple):
    """How often a run is outside of all others."""

    curve: Curve
    windows: int
    """Of all losses together, where every run has a mean."""
    below: int
    above: int


def outside(curves: Sequence[Curve], updates: int) -> list[Outside]:
    """Compare each run with all others, in the order given; a loss that one lacks is left out.

    ValueError unless there are three runs or more of one task, with a window that all have seen.
    """
    if len(curves) < 3:
        raise ValueError(f"{len(curves)} runs: of fewer than three, each is outside of all others")
    if len(tasks := sorted({curve.task for curve in curves})) > 1:
        raise ValueError(f"runs of one task can be compared, not of {', '.join(tasks)}")
    end = min(max(curve.column("loss/dyn", "update")[0]) for curve in curves)
    edges = np.arange(0, end + 1, updates, dtype=np.float64)
    losses = [name for name in LOSSES if all(c.column(name, "update")[0] for c in curves)]
    means = np.concatenate([_means(curves, name, edges) for name in losses], 1)
    means = means[:, ~np.isnan(means).any(0)]  # [R, W]
    if not means.size:
        raise ValueError(f"no window of {updates} updates has losses of all runs")
    found = []
    for row, curve in enumerate(curves):
        others = np.delete(means, row, 0)
        below, above = means[row] < others.min(0), means[row] > others.max(0)
        found.append(Outside(curve, means.shape[1], int(below.sum()), int(above.sum())))
    return found


def _means(curves: Sequence[Curve], name: str, edges: Array) -> Array:
    """[R, W]."""
    columns = (curve.column(name, "update") for curve in curves)
    pairs = ((np.array(x), np.array(y)) for x, y in columns)
    return np.stack([binned(x[x < edges[-1]], y[x < edges[-1]], edges) for x, y in pairs])


if __name__ == "__main__":
    asked = ArgumentParser(description="How often a run lies outside of all others.")
    asked.add_argument("updates", type=int, help="updates of a window, 1 or more")
    asked.add_argument("files", type=Path, nargs="+", metavar="FILE.csv")
    words = asked.parse_args()
    try:
        curves = [curve for path in words.files for curve in read_curves(path)]
        found = outside(curves, words.updates)
    except (OSError, ValueError) as error:
        asked.error(str(error))
    for run in found:
        share = (run.below + run.above) / run.windows
        where = f"{run.below} below, {run.above} above, of {run.windows} windows"
        print(f"{run.curve.group}, seed {run.curve.seed}: {share:.0%} ({where})")
    print(f"by chance: {2 / len(curves):.0%}")
