"""What is said of a sweep: a line for each run, and its groups of runs on one chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len

from dreamer_async.tui.draw.axis import Scale, value_scale
from dreamer_async.tui.draw.chart import draw, layer, text_rows
from dreamer_async.tui.draw.picture import Curve, Entry, Picture
from dreamer_async.tui.draw.rows import Part, Row, cells, fit, fit_ends, spread
from dreamer_async.tui.draw.text import count, duration, plural, short
from dreamer_async.tui.draw.trace import Trace
from dreamer_async.tui.read.series import Array
from dreamer_async.tui.read.sweep import RECENT, RUNNING, Member, SweepSource

SORTS = ("order", "state", "steps", "return", "eta")
"""What lines can be sorted by."""
LINES = ("line", "line-2", "line-3", "line-4")
GROUNDS = ("ground", "ground-2", "ground-3", "ground-4")
POINTS = 96
"""Of a group's curve."""
SAMPLES = 300
"""Of the bootstrap."""
_LOOKS = {"completed": "good", "training": "good", "failed": "bad", "killed": "bad"}
_COLUMNS = {"state": 11, "steps": 8, "done": 6, "return": 9, "eta": 8}
"""What stands right of a run's name, and how wide."""
_SPARK, _HOST = 16, 20
_NARROW = 72
"""Fewer columns have no room for curves."""
_SHORT_NAME = 8
"""Columns of a sweep's name that are kept in any case."""
_ROOMY = 100
"""Columns of a terminal from which on steps are counted, too, and not said in percent alone."""


def in_order(members: Sequence[Member], by: str, *, backwards: bool) -> list[Member]:
    """The runs as they are to be listed; what is not known comes last."""
    keys = {
        "order": lambda m: m.place,
        "state": lambda m: (m.state not in RUNNING, m.state, m.place),
        "steps": lambda m: -m.steps,
        "return": lambda m: -m.score,
        "eta": lambda m: m.eta,
    }
    unknown = [m for m in members if _unknown(m, by)]
    known = sorted((m for m in members if m not in unknown), key=keys[by], reverse=backwards)
    return [*known, *unknown]


def _unknown(member: Member, by: str) -> bool:
    return (by == "return" and member.score is None) or (by == "eta" and member.eta is None)


def head(source: SweepSource, width: int) -> Row:
    """What the sweep is and how far, in so many columns; its name gives way to how its runs are."""
    members = source.members
    states = Counter(member.state for member in members)
    share = sum(map(_share, members)) / len(members) if members else 0.0
    told = [Part(f"  {len(members)} runs")]
    told += [Part(f"  {n} {state}", _LOOKS.get(state, "dim")) for state, n in states.items()]
    if source.problem:
        told = [Part(f"  {source.problem}", "bad")]
    before, far = Part("dreamer-async ", "dim"), [Part(f"{share:.0%} of all steps", "dim")]
    whole = [Part("▌", "accent"), before, Part(source.name, "strong"), *told]
    if cells(whole) + 1 + cells(far) <= width:
        return spread(whole, far, width)
    far = [Part(f"{share:.0%}", "dim")]
    told = told if source.problem else told[1:]  # their sum is no news
    room = width - 2 - cells(told) - cells(far)
    name = fit_ends(source.name, max(_SHORT_NAME, min(room, cell_len(source.name))))
    return spread([Part("▌", "accent"), Part(name, "strong"), *told], far, width)


def _columns(width: int) -> dict[str, int]:
    return {k: size for k, size in _COLUMNS.items() if k != "steps" or width >= _ROOMY}


def _name_width(width: int) -> int:
    host = _HOST if width >= _ROOMY else 0
    curve = _SPARK + 2 if width >= _NARROW else 0
    return max(8, min(48, width - 3 - sum(_columns(width).values()) - curve - host))


def heading(by: str, width: int) -> Row:
    """Names of the columns; the one that sorts is marked."""
    row: list[Part] = [Part("  " + fit("run", _name_width(width)) + " ", _marked("order", by))]
    for name, size in _columns(width).items():
        row.append(
            Part(f"{name:<{size}}" if name == "state" else f"{name:>{size}}", _marked(name, by))
        )
    return [*row, Part(f"  {'over steps':{_SPARK}}", "dim"), Part("  machine", "dim")]


def _marked(name: str, by: str) -> str:
    return "strong" if name == by else "dim"


def line(member: Member, width: int, *, chosen: bool) -> Row:
    """One run: name, state, steps, return, time left, the curve of its returns, its machine."""
    state = member.state
    cells_of = {
        "state": Part(f"{state:<11}", _LOOKS.get(state, "dim")),
        "steps": Part(f"{count(member.steps):>8}"),
        "done": Part(f"{_share(member):>6.0%}", "dim"),
        "return": Part(f"{short(member.score):>9}", "strong"),
        "eta": Part(f"{'–' if member.eta is None else duration(member.eta):>8}", "dim"),
    }
    row: list[Part] = [
        Part("▸ " if chosen else "  ", "accent"),
        Part(fit_ends(member.name, _name_width(width)) + " ", "strong" if chosen else "text"),
        *(cells_of[name] for name in _columns(width)),
    ]
    if width < _NARROW:
        return row
    row.append(Part(f"  {spark(member, _SPARK)}", "line"))
    room = width - cells(row)
    return [*row, Part("  " + fit(member.host, min(_HOST, room) - 2), "dim")] if room > 8 else row


def _share(member: Member) -> float:
    return min(1.0, member.steps / member.planned) if member.planned else 0.0


def spark(member: Member, width: int) -> str:
    """The curve of a run's returns in one row, over the steps that are planned."""
    if member.source is None or not len(member.source.view.episodes):
        return " " * width
    episodes = member.source.view.episodes
    trace = Trace(episodes.x, episodes.rolling_mean(RECENT))
    up = value_scale([trace])
    if up is None:
        return " " * width
    far = float(max(member.planned, member.steps, 1))
    return text_rows(layer([draw(trace, Scale(0.0, far), up, width, 1)])[0])[0]


# -- groups ----------------------------------------------------------------------------------


def groups_of(members: Sequence[Member], task: str) -> dict[str, list[Member]]:
    """Runs of a task by their settings, in the order of the sweep."""
    found: dict[str, list[Member]] = {}
    for member in members:
        if member.group[0] == task:
            found.setdefault(member.group[1], []).append(member)
    return found


def chart(members: Sequence[Member], chosen: Member | None) -> Picture:
    """Mean return of each group of the chosen run's task, with intervals of a bootstrap of 95 %.

    With more groups than colours, those of the chosen run and of the best means.
    """
    if chosen is None:
        return Picture("return", empty="no run yet")
    task, own = chosen.group
    groups = {
        label: group
        for label, runs in groups_of(members, task).items()
        if (group := mean_of(runs)) is not None
    }
    ranked = sorted(groups, key=lambda label: (label != own, -groups[label].last))
    shown = [label for label in groups if label in ranked[: len(LINES)]]
    traces = [groups[label].trace for label in shown]
    curves = [
        Curve(Trace(trace.x, trace.y), look) for trace, look in zip(traces, LINES, strict=False)
    ]
    grounds = [Curve(trace, look) for trace, look in zip(traces, GROUNDS, strict=False)]
    legend = [_entry(label, groups[label], look) for label, look in zip(shown, LINES, strict=False)]
    more = len(groups) - len(shown)
    return Picture(
        title=f"{task}: mean return of {RECENT} episodes",
        note="shaded: 95 % of a bootstrap over runs" + (f", {more} more groups" if more else ""),
        legend=legend,
        curves=curves,
        grounds=[each for each in grounds if each.trace.low is not None],
        unit="steps",
        empty="no finished episode yet",
    )


def _entry(label: str, group: Mean, look: str) -> Entry:
    """A group and its last mean, which is that of the runs that got furthest: so many of all."""
    value = Part(f" {short(group.last)}", "strong")
    name, line = label or "all runs", Part("━ ", look)
    narrow = fit_ends(name, min(len(name), 16))
    far, runs = group.far, group.runs
    of = plural(runs, "run") if far == runs else f"{far} of {plural(runs, 'run')}"
    return [
        [line, Part(name, "dim"), value, Part(f" ({of})", "dim")],
        [line, Part(narrow, "dim"), value, Part(f" ({far}/{runs})", "dim")],
    ]


class Mean(NamedTuple):
    """The mean return of a group of runs."""

    trace: Trace
    """Over the steps, with the interval if there is one."""
    far: int
    """Runs that have come as far as its last point."""
    runs: int
    """Runs of the group, those that have not begun included."""

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.trace.y[-1])


def mean_of(runs: Sequence[Member]) -> Mean | None:
    """Mean over the runs that have come so far at each point, and what a bootstrap makes of it.

    A run counts between its first episode and its last. None before any episode.
    """
    series = [
        (episodes.x, episodes.rolling_mean(RECENT))
        for run in runs
        if run.source is not None and len(episodes := run.source.view.episodes)
    ]
    if not series:
        return None
    last = max(float(x[-1]) for x, _ in series)
    first = min(float(x[0]) for x, _ in series)
    grid = np.linspace(first, last, POINTS)
    values = np.stack([np.interp(grid, x, y, np.nan, np.nan) for x, y in series])  # [R, POINTS]
    here = ~np.isnan(values).all(axis=0)
    grid, values = grid[here], values[:, here]
    mean = np.nanmean(values, axis=0)
    low, high = interval(values) if len(series) > 1 else (None, None)
    far = int((~np.isnan(values[:, -1])).sum())
    return Mean(Trace(grid, mean, low, high), far, len(runs))


def interval(values: Array) -> tuple[Array, Array]:
    """Percentiles of the means of runs that are drawn with replacement, [R, N] -> [N] and [N].

    The same numbers for the same runs. A point that no drawn run has reached counts for nothing.
    """
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(values), size=(SAMPLES, len(values)))
    there = ~np.isnan(values)
    totals = np.where(there, values, 0.0)[drawn].sum(axis=1)  # [SAMPLES, N]
    counts = there[drawn].sum(axis=1)
    means = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    low, high = np.nanquantile(means, (0.025, 0.975), axis=0)
    return low, high


def foot(by: str, *, backwards: bool) -> str:
    """How the lines are sorted, in words."""
    return f"sorted by {by}" + (", backwards" if backwards else "")
