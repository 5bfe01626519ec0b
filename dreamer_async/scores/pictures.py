"""Pictures of learning curves, one per task: `just learning-report`.

    python -m dreamer_async.scores.pictures [DIRECTORY]

reads every CSV of the directory (docs/learning) and draws `SUITE_TASK.svg` into it: returns over
frames, with the published runs behind them where there are some, and losses over updates. Runs of
one group are seeds: a line is their median, its ground their range. `published.svg` has the returns
of all tasks of which curves were published. Needs the extra `plots`.

Legend: R runs of a group, B bins of an axis.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.scores import curves as published
from dreamer_async.scores.learning import RECONSTRUCTION, Curve, read_curves
from dreamer_async.store.sizes import counted

Array = NDArray[np.float64]

BINS = 40
"""Points of a line; what falls into one is averaged."""
PANELS = (
    ("return", "frames", "return of training episodes"),
    ("loss/reward", "update", "reward loss"),
    ("loss/dyn", "update", "KL to the prior (free nats: 1)"),
    (RECONSTRUCTION, "update", "reconstruction loss"),
    ("return/S", "update", "return scale S"),
    ("policy/entropy", "update", "entropy of the policy"),
)
"""Column, what it is drawn over, and title."""
LOGARITHMIC = frozenset({"loss/reward", "loss/dyn", RECONSTRUCTION})
OVERVIEW = "published"
"""Name of the picture of all tasks of which curves were published."""
ACROSS = 4
"""Most panels of it side by side."""
OFFICIAL = "official"
"""How groups of the official code's runs begin, which are drawn in black and first."""
LINES = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#a6761d")


def draw(directory: Path) -> list[Path]:
    """Draw every task of the CSVs in a directory; ValueError if one of them is none."""
    tasks: dict[str, list[Curve]] = {}
    for path in sorted(directory.glob("*.csv")):
        for curve in read_curves(path):
            tasks.setdefault(curve.task, []).append(curve)
    tasks = dict(sorted(tasks.items()))
    pictures = [_draw_task(directory, task, runs) for task, runs in tasks.items()]
    shared = _shared({task: runs for task, runs in tasks.items() if _published(task, runs)})
    return [*pictures, _draw_overview(directory, shared)] if shared else pictures


def _draw_task(directory: Path, task: str, runs: Sequence[Curve]) -> Path:
    from matplotlib.figure import Figure

    with _style(task):
        figure = Figure((11, 6.2), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        colours = _colours(runs)
        for axis, (column, over, title) in zip(axes, PANELS, strict=True):
            if column == "return":
                _draw_published(axis, task, runs)
            for name, group in _groups(runs):
                _draw_group(axis, group, column, over, colours[name], f"{name}, {_count(group)}")
            axis.set(title=title, xlabel=over if over == "frames" else "updates", xlim=(0, None))
            axis.set_yscale("log" if column in LOGARITHMIC else "linear")
        figure.suptitle(task)
        return _save(figure, axes[:1], directory, task)


def _draw_overview(directory: Path, tasks: Mapping[str, Sequence[Curve]]) -> Path:
    """Returns of several tasks, one beside the other."""
    from matplotlib.figure import Figure

    colours = _colours(run for runs in tasks.values() for run in runs)
    rows = -(-len(tasks) // ACROSS)
    across = -(-len(tasks) // rows)
    with _style(OVERVIEW):
        figure = Figure((11, 0.8 + 2.7 * rows), layout="constrained")
        axes = figure.subplots(rows, across, squeeze=False).ravel()
        for axis, (task, runs) in zip(axes, tasks.items(), strict=False):
            _draw_published(axis, task, runs)
            for name, group in _groups(runs):
                _draw_group(axis, group, "return", "frames", colours[name], name)
            axis.set(title=task, xlabel="frames", xlim=(0, None))
            axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        for axis in axes[len(tasks) :]:
            axis.remove()
        return _save(figure, axes[: len(tasks)], directory, OVERVIEW)


def _style(salt: str) -> AbstractContextManager[None]:
    """How all pictures look; the same data give the same bytes."""
    import matplotlib as mpl

    same: dict[Any, Any] = {"svg.hashsalt": salt, "svg.fonttype": "none", "path.simplify": True}
    return mpl.rc_context({**same, "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})


def _save(figure: Any, axes: Iterable[Any], directory: Path, name: str) -> Path:
    """Write a picture with one legend for what these panels label."""
    legend: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    place = {"loc": "outside lower center", "ncols": 3, "frameon": False}
    figure.legend([*legend.values()], [*legend], **place)
    target = directory / f"{name.replace('/', '_')}.svg"
    figure.savefig(target, metadata={"Date": None})
    return target


def _groups(runs: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    """Runs by group, the official code first."""
    groups: dict[str, list[Curve]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return sorted(groups.items(), key=lambda item: (not item[0].startswith(OFFICIAL), item[0]))


def _shared(tasks: Mapping[str, Sequence[Curve]]) -> dict[str, list[Curve]]:
    """Of each task the runs of groups that another one has, too."""
    among = Counter(name for runs in tasks.values() for name, _ in _groups(runs))
    shared = {task: [run for run in runs if among[run.group] > 1] for task, runs in tasks.items()}
    return {task: runs for task, runs in shared.items() if runs}


def _colours(runs: Iterable[Curve]) -> dict[str, str]:
    """{group: its colour}"""
    names = [name for name, _ in _groups(runs)]
    rest = iter(LINES * len(names))
    return {name: "black" if name.startswith(OFFICIAL) else next(rest) for name in names}


def _count(group: Sequence[Curve]) -> str:
    return counted(len(group), "seed")


def _draw_group(
    axis: Any, group: Sequence[Curve], column: str, over: str, colour: str, label: str
) -> None:
    """Median and range of some runs, each averaged inside the bins of the longest."""
    points = [points for run in group if (points := run.column(column, over))[0]]
    if not points:
        return
    edges = np.linspace(0, max(max(x) for x, _ in points), BINS + 1)
    means = np.stack([binned(np.array(x), np.array(y), edges) for x, y in points])  # [R, B]
    seen = ~np.isnan(means).all(0)
    middle = ((edges[1:] + edges[:-1]) / 2)[seen]
    mark = "." if len(middle) == 1 else ""  # of which there is no line
    line = np.nanmedian(means[:, seen], 0)
    axis.plot(middle, line, color=colour, lw=1.4, marker=mark, label=label)
    if len(points) > 1:
        low, high = np.nanmin(means[:, seen], 0), np.nanmax(means[:, seen], 0)
        axis.fill_between(middle, low, high, color=colour, alpha=0.18, lw=0)


def binned(x: Array, y: Array, edges: Array) -> Array:
    """Mean of y inside each bin: [B], NaN where there is none."""
    place = np.clip(np.searchsorted(edges, x, side="left") - 1, 0, len(edges) - 2)
    count = np.bincount(place, minlength=len(edges) - 1)
    total = np.bincount(place, y, minlength=len(edges) - 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _draw_published(axis: Any, task: str, runs: Sequence[Curve]) -> None:
    """Median and range of the published runs, as far as these have come."""
    part = _published(task, runs)
    if part is None:
        return
    made = published.made_with(task.partition("/")[0])
    label = f"published ({made}), {counted(part.seeds, 'seed')}"
    axis.plot(part.frames, part.median, color="gray", ls="--", lw=1.2, label=label)
    axis.fill_between(part.frames, part.low, part.high, color="gray", alpha=0.2, lw=0)


def _published(task: str, runs: Sequence[Curve]) -> published.Published | None:
    """What was published of a task, as far as these runs have come."""
    suite, _, name = task.partition("/")
    ends = [max(frames) for run in runs if (frames := run.column("return", "frames")[0])]
    known = published.find(suite, name)
    if known is None or not ends:
        return None
    part = known.until(max(ends))
    return part if len(part.frames) else None


if __name__ == "__main__":
    asked = ArgumentParser(description="Draw the curves of a directory, one picture for each task.")
    asked.add_argument("directory", type=Path, nargs="?", default=Path("docs/learning"))
    place = asked.parse_args().directory
    try:
        pictures = draw(place)
    except (OSError, ValueError) as error:
        asked.error(str(error))
    if not pictures:
        asked.error(f"{place} has no CSV; `dreamer-async curves RUN -o FILE` writes one")
    for picture in pictures:
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
