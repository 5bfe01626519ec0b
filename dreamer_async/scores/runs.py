"""Runs as scores and curves take them: what tells them apart, and what each of them has lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from dreamer_async.store.events import Resumed
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir

T = TypeVar("T")


def names_of(runs: Sequence[RunDir]) -> list[str]:
    """A name for each of different runs that no other has: SWEEP/RUN for a run of a sweep.

    Where two would share even that, both have their paths.
    """
    names = [_name(run) for run in runs]
    times = Counter(names)
    return [
        name if times[name] == 1 else str(run.path) for run, name in zip(runs, names, strict=True)
    ]


def _name(run: RunDir) -> str:
    sweep = SweepDir(run.path.parent)
    return f"{sweep.name}/{run.name}" if sweep.exists() else run.name


def kept(entries: Iterable[tuple[int, T]], resumed: Resumed) -> list[tuple[int, T]]:
    """What of (agent steps, anything) is still a part of the run when it goes on.

    The rest came after what had been saved, and is played again.
    """
    return [entry for entry in entries if entry[0] <= resumed.env_steps]
