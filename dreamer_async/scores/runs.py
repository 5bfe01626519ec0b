"""What tells runs apart, where scores and curves take several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir


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
