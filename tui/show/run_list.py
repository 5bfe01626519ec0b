"""The runs beside the one that is shown, each in one line made from the end of its stream."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from dreamer_async.store.events import Record
from dreamer_async.store.regular_file import reading
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.tui.draw.rows import fit_ends
from dreamer_async.tui.draw.text import clean, count, short
from dreamer_async.tui.read.progress import Trainer, phase
from dreamer_async.tui.read.state import reduce
from dreamer_async.tui.read.tail import Tail, decode
from dreamer_async.tui.read.view import RunView

TAIL_BYTES = 1 << 17
RARE_BYTES = 1 << 21
"""So far from the end episodes and phases are looked for: they may be rare."""
MOST = 200
"""Runs that are listed."""
_FACTS = 27
"""Columns beside a name: its mark, phase, steps and score."""
_LEAST_NAME = 12
_RARE = tuple(
    b'{"type":"%s",' % kind
    for kind in (b"episode", b"run_started", b"resumed", b"phase_changed", b"run_finished")
)


def listed(
    root: Path, current: str, laid_over: Collection[str], width: int
) -> list[tuple[str, str]]:
    """Name every run and describe it in a line of so many columns, newest first."""
    room = max(_LEAST_NAME, width - _FACTS)
    rows = []
    for run in list_runs(root)[:MOST]:
        mark = "▸" if run.name == current else "+" if run.name in laid_over else " "
        rows.append((run.name, f"{mark} {fit_ends(clean(run.name, 80), room)} {_end_of(run)}"))
    return rows


def _end_of(run: RunDir) -> str:
    """Where a run stands: phase, steps, mean of the last scores."""
    try:
        size = run.events_path.lstat().st_size
    except OSError:
        return "new"
    view = RunView()
    tail = Tail(run.events_path, max(0, size - TAIL_BYTES))
    newest = tail.read(TAIL_BYTES)
    tail.close()
    for record in [*_rare(run.events_path, size - RARE_BYTES, size - TAIL_BYTES), *newest]:
        reduce(view, record)
    alive = run.owner() is not None
    name = phase(view, Trainer(alive=alive)).name
    if alive and name == "waiting":
        name = "training"  # its phase stands before the end of the stream
    scores = view.episodes.mean[-20:]
    score = f"{short(float(scores.mean())):>8}" if len(scores) else ""
    return f"{name:<9} {count(view.env_steps):>6}{score}"


def _rare(path: Path, start: int, stop: int) -> list[Record]:
    """Events of rare kinds between two bytes; nothing if they cannot be read."""
    found = []
    for line in _lines(path, max(0, start), stop):
        if line.startswith(_RARE):
            with suppress(ValueError):
                found.append(decode(line))
    return found


def _lines(path: Path, start: int, stop: int) -> list[bytes]:
    if stop <= start:
        return []
    try:
        with reading(path) as file:
            return os.pread(file.fileno(), stop - start, start).split(b"\n")
    except OSError:
        return []
