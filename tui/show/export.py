"""The numbers of a curve as CSV, for a table or a plot of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dreamer_async.tui.read.series import Series
from dreamer_async.tui.read.view import Evaluation, RunView

COLUMNS = ("env_steps", "update", "seconds", "least", "mean", "most")
"""Of a curve: where each point, or each bucket of a very long curve, ends, and what is in it."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def to_csv(view: RunView, name: str) -> str:
    """The whole curve of a number; what is only known of late are its last ten minutes."""
    if name == "evaluation/mean":
        return _table(COLUMNS, map(_evaluation, view.evaluations))
    series = {"episode/score": view.episodes, "episode/length": view.lengths}.get(name)
    series = view.metrics.get(name) if series is None else series
    if series is not None:
        return _table(COLUMNS, _points(series))
    rows = ((r.env_steps, r.updates, r.ran, r.values.get(name)) for r in view.recent)
    return _table((*COLUMNS[:3], "value"), (row for row in rows if row[-1] is not None))


def file_name(run: str, name: str) -> str:
    """A name for the file that is safe whatever run and number are called."""
    return f"{_UNSAFE.sub('-', f'{run}-{name}').strip('-.')[:120]}.csv"


def _evaluation(done: Evaluation) -> Sequence[float]:
    return done.env_steps, done.updates, done.ran, min(done.scores), done.mean, max(done.scores)


def _points(series: Series) -> Iterable[Sequence[float]]:
    axes = (series.along(axis).tolist() for axis in ("steps", "updates", "time"))
    return zip(*axes, series.low.tolist(), series.mean.tolist(), series.high.tolist(), strict=True)


def _table(heading: Sequence[str], rows: Iterable[Sequence[float | None]]) -> str:
    lines = [",".join(f"{value:.10g}" for value in row if value is not None) for row in rows]
    return "\n".join([",".join(heading), *lines, ""])
