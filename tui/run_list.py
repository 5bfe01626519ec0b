"""The runs beside the one that is shown, each in one line made from the end of its stream."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dreamer_async.run_dir import RunDir, list_runs
from tui.progress import Trainer, phase
from tui.state import reduce
from tui.tail import Tail
from tui.text import clean, count, short
from tui.view import RunView
from tui.widgets.panel import fit

TAIL_BYTES = 1 << 17
MOST = 200
"""Runs that are listed."""
_NAME = 32


def listed(root: Path, current: str, laid_over: Collection[str]) -> list[tuple[str, str]]:
    """Name every run and describe it in a line, newest first."""
    rows = []
    for run in list_runs(root)[:MOST]:
        mark = "▸" if run.name == current else "+" if run.name in laid_over else " "
        rows.append((run.name, f"{mark} {fit(clean(run.name, 80), _NAME)} {_end_of(run)}"))
    return rows


def _end_of(run: RunDir) -> str:
    """Where a run stands: phase, steps, mean of the last scores."""
    try:
        size = run.events_path.stat().st_size
    except OSError:
        return "new"
    view, start = RunView(), max(0, size - TAIL_BYTES)
    tail = Tail(run.events_path, start)
    for record in tail.read(TAIL_BYTES):
        reduce(view, record)
    tail.close()
    alive = run.owner() is not None
    name = phase(view, Trainer(alive=alive)).name
    if alive and name == "waiting":
        name = "training"  # its phase stands before the end of the stream
    scores = view.episodes.mean[-20:]
    score = f"{short(float(scores.mean())):>8}" if len(scores) else ""
    return f"{name:<9} {count(view.env_steps):>6} steps{score}"
