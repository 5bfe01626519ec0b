"""What a sweep takes: disk exactly, hours from a short measurement, before anything is made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamer_async.config import Config
from dreamer_async.store.directory import existing

MUCH_HOURS = 24.0
MUCH_GB = 100.0
"""From here on a person is asked first."""
GB = 1e9


@dataclass(frozen=True)
class Cost:
    """Of all the runs that are still to be done."""

    runs: int
    gigabytes: float
    """Replay and checkpoints of all of them."""
    free_gigabytes: float
    hours: float | None
    """One run after the other; None where nothing was measured."""

    @property
    def much(self) -> bool:
        """Whether a person should say yes first."""
        long = self.hours is not None and self.hours > MUCH_HOURS
        return long or self.gigabytes > min(MUCH_GB, self.free_gigabytes)

    def line(self, at_once: int) -> str:
        """For people, with so many runs at a time."""
        disk = f"{self.gigabytes:,.1f} GB of disk ({self.free_gigabytes:,.1f} GB are free)"
        if self.hours is None:
            return f"{self.runs} runs to do: {disk}, hours not measured"
        each = f", {self.hours / at_once:,.1f} with {at_once} at a time" if at_once > 1 else ""
        return f"{self.runs} runs to do: {disk}, about {self.hours:,.1f} hours of training{each}"


@dataclass(frozen=True)
class Todo:
    """One run that is still to be done."""

    config: Config
    left: float
    """Share of its steps, 0 to 1."""
    made: bool
    """Whether it has its disk already."""


def estimate(todo: Sequence[Todo], directory: Path, *, speeds: bool) -> Cost:
    """What runs take.

    The disk is what `plan` says of each kind of run. With `speeds` an update and a step are
    measured for one run of each size; all runs of that size are taken to be as fast.
    """
    free = shutil.disk_usage(existing(directory)).free / GB
    plans: dict[str, Mapping[str, Any]] = {}
    measured: dict[str, Mapping[str, Any]] = {}
    gigabytes, hours = 0.0, 0.0 if speeds else None
    for each in todo:
        kind = _kind(each.config)
        if kind not in plans:
            plans[kind] = plan_of(each.config, directory)
        known = plans[kind]
        if not each.made:
            gigabytes += known["replay_gb"] + known["checkpoint_gb"] * known["checkpoints"]
        if hours is not None:
            size = each.config.size
            if size not in measured:
                measured[size] = plan_of(each.config, directory, speeds=True)
            spent = _hours(known, measured[size])
            hours = None if spent is None else hours + each.left * spent
    return Cost(len(todo), gigabytes, free, hours)


def plan_of(config: Config, directory: Path, *, speeds: bool = False) -> Mapping[str, Any]:
    """What `plan` says of one run."""
    from dreamer_async.bench.plan import plan

    return plan(config, directory, speeds=speeds)


def _hours(known: Mapping[str, Any], measured: Mapping[str, Any]) -> float | None:
    """Of a run as long as `known` and as fast as `measured`.

    Learner and environments work side by side: the slower of both counts.
    """
    update, step = measured["update_s"], measured["step_s"]
    if update is None or step is None:
        return None
    return max(known["updates"] * update, known["steps"] * step) / 3600


def _kind(config: Config) -> str:
    """What runs of one cost have in common: everything but the seed."""
    return repr(replace(config, train=replace(config.train, seed=0)))
