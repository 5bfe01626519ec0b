"""Stopping a sweep: whoever carries it out, what waits in a queue, and every run that trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from dreamer_async.config import ConfigError
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir


class Stopped(NamedTuple):
    """What came of it."""

    in_time: bool
    """Whether nothing of it runs any more."""
    ran: bool
    """Whether there was anything to be stopped."""
    problem: str = ""
    """What could not be asked to stop, for people; mostly empty."""


def stop(sweep: SweepDir, seconds: float) -> Stopped:
    """Let a sweep and its runs save and end, and wait for that.

    First whoever would start other runs; then what still trains, whoever has started it.
    """
    queued, problem = _withdraw(sweep)
    asked: set[RunDir] = set()
    carried_out = sweep.owner() is not None
    if carried_out:
        sweep.request("stop")

    def over() -> bool:
        if sweep.owner() is not None:
            return False
        training = [run for run in sweep.runs() if run.owner() is not None]
        for run in training:
            if run not in asked:
                run.request("stop")
            asked.add(run)
        return not training

    in_time = until(over, seconds)
    return Stopped(in_time, bool(carried_out or asked or queued), problem)


def _withdraw(sweep: SweepDir) -> tuple[int, str]:
    """Take what waits out of Slurm's queue; how many jobs were in it, or why it does not say."""
    jobs = [job for job in sweep.read().jobs if job.batch_id]
    if not jobs:
        return 0, ""
    from dreamer_async.sweep.slurm import withdraw

    try:
        return withdraw(jobs), ""
    except ConfigError as error:
        return 0, f"jobs that wait in Slurm's queue stay there: {error}"


def until(reached: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Wait until something is so; False if it is not in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
