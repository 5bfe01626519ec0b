"""A picture of many runs: their numbers with intervals, and the share of runs above each score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_async.scores.aggregate import Aggregate, Array, profile

THRESHOLDS = 101
NUMBERS = ("iqm", "median", "mean")
FORMATS = (".png", ".pdf", ".svg")


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one kind."""

    label: str
    aggregate: Aggregate
    scores: Array
    """[R, N] normalized."""
    published_mean: float | None = None
    published_median: float | None = None


def draw(groups: Sequence[Group], path: Path) -> None:
    """Write the picture, as PNG, PDF or SVG by the ending of its name. Takes matplotlib."""
    figure = import_module("matplotlib.figure").Figure(
        figsize=(11, 3.2 + 0.25 * len(groups)), layout="constrained"
    )
    numbers, shares = figure.subplots(1, 2, width_ratios=(3, 2))
    _numbers(numbers, groups)
    _profiles(shares, groups)
    figure.savefig(path, dpi=150)


def _numbers(axes: Any, groups: Sequence[Group]) -> None:
    height = len(groups) + 1
    for row, group in enumerate(groups):
        for place, name in enumerate(NUMBERS):
            each = getattr(group.aggregate, name)
            y = -(place * height + row)
            low, high = (each.value if end is None else end for end in (each.low, each.high))
            label = group.label if place == 0 else None
            axes.plot([low, high], [y, y], color=f"C{row}", linewidth=6, alpha=0.4)
            axes.plot([each.value], [y], "|", color=f"C{row}", markersize=12, label=label)
            published = getattr(group, f"published_{name}", None)
            if published is not None:
                axes.plot([published], [y], "kd", markersize=4)
    axes.set_yticks(
        [-(place * height + (len(groups) - 1) / 2) for place in range(len(NUMBERS))],
        ["IQM", "median", "mean"],
    )
    axes.set_xlabel("normalized score, 95 % intervals; diamonds: published")
    axes.grid(axis="x", alpha=0.3)


def _profiles(axes: Any, groups: Sequence[Group]) -> None:
    top = max(float(np.quantile(group.scores, 0.95)) for group in groups)
    thresholds = np.linspace(0.0, max(top, 1e-3), THRESHOLDS)
    for row, group in enumerate(groups):
        shares = profile(group.scores, thresholds)
        axes.plot(thresholds, shares.share, color=f"C{row}", label=group.label)
        axes.fill_between(thresholds, shares.low, shares.high, color=f"C{row}", alpha=0.2)
    axes.set_xlabel("normalized score τ")
    axes.set_ylabel("share of runs above τ")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
