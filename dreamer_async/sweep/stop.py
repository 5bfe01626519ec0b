"""Stopping a sweep: whoever carries it out, what waits in a queue, and every run that trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from dreamer_async.config import ConfigError
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir

QUEUE_SECONDS = 2.0
"""Between two looks at Slurm's queue, which all users of a cluster ask."""


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

    First whoever would start other runs; then what still trains, whoever has started it; and
    jobs of Slurm whose runs nobody trains: they wait, begin, or would queue themselves again.
    """
    queue = Queue(sweep)
    asked: dict[RunDir, Mapping[str, Any]] = {}
    carried_out = sweep.owner() is not None
    if carried_out:
        sweep.request("stop")

    def over() -> bool:
        if sweep.owner() is not None:
            return False
        training = {run: owner for run in sweep.runs() if (owner := run.owner()) is not None}
        for run, owner in training.items():
            if asked.get(run) != owner:  # or Slurm has started it anew
                run.request("stop")
        asked.update(training)
        return queue.emptied(training) and not training

    in_time = until(over, seconds)
    return Stopped(in_time, bool(carried_out or asked or queue.had), queue.problem)


class Queue:
    """What of a sweep is in Slurm's queue."""

    def __init__(self, sweep: SweepDir) -> None:
        self._sweep = sweep
        self._next = 0.0
        self.had = False
        """Whether there was anything in it."""
        self.problem = ""
        """Why Slurm does not say, for people; mostly empty."""

    def emptied(self, training: Collection[RunDir]) -> bool:
        """Withdraw the jobs of other runs than those that train; whether none is left.

        Slurm is asked now and then, and not again once it has not answered.
        """
        jobs = [job for job in self._sweep.read().jobs if job.batch_id]
        if not jobs or self.problem:
            return True
        if time.monotonic() < self._next:
            return False
        from dreamer_async.sweep.slurm import withdraw

        try:
            left = withdraw([job for job in jobs if self._sweep.run(job) not in training])
        except ConfigError as error:
            self.problem = f"jobs that wait in Slurm's queue stay there: {error}"
            return True
        self.had |= left > 0
        self._next = time.monotonic() + QUEUE_SECONDS
        return not left


def until(reached: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Wait until something is so; False if it is not in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
