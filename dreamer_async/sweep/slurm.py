"""Runs of a sweep as an array of Slurm's jobs, through submitit.

A job trains one run for as long as it may. Slurm's signal before the time limit, or before it
preempts the job, lets the run save; the job queues itself again and goes on from there, until all
steps are done. Nothing of the run is pickled but its path.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from dreamer_async.config import ConfigError
from dreamer_async.config.schema import shown
from dreamer_async.machine.interpreter import environment
from dreamer_async.store.events import RunFinished, read_events
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import Job, SweepDir
from dreamer_async.sweep import work

SIGNAL = signal.SIGUSR2
"""What Slurm sends before the time limit, as submitit asks it to."""
LONGEST_SAVE = 180
"""Seconds before the time limit at which a run is told to save; a quarter of a short limit."""
TIMES = 10_000
"""How often a job may reach its time limit: as often as its run needs."""
PATIENCE = 900.0
"""Seconds that a job which was told to end waits until Slurm ends it."""
_TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?")


@dataclass(frozen=True)
class Limits:
    """What a job may take."""

    time: str
    """As Slurm has it: minutes, hours:minutes:seconds, days-hours:minutes:seconds."""
    partition: str | None = None
    gpus: int = 1
    cpus: int = 4
    sbatch: tuple[str, ...] = ()
    """Other options of sbatch: `account=me`, `exclusive`."""

    def parameters(self) -> dict[str, Any]:
        """As submitit takes them; ConfigError says what is wrong."""
        minutes = minutes_of(self.time)
        others: dict[str, Any] = {"requeue": True}
        for text in self.sbatch:
            key, sign, value = text.lstrip("-").partition("=")
            if not key or key in ("time", "partition", "signal", "array", "output", "error"):
                raise ConfigError(f"--sbatch {shown(text)}: the sweep sets that itself")
            others[key.replace("-", "_")] = value if sign else True
        given: dict[str, Any] = {"time": minutes, "cpus_per_task": self.cpus}
        if self.partition:
            given["partition"] = self.partition
        if self.gpus:
            given["gpus_per_node"] = self.gpus
        before = min(LONGEST_SAVE, max(1, 60 * minutes // 4))
        return given | {"signal_delay_s": before, "additional_parameters": others}


def minutes_of(text: str) -> int:
    """Read a time limit of Slurm in whole minutes, at least one; ConfigError if it is none."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"--time {shown(text)}: expected minutes, or a time such as 4:00:00 or 2-12:00:00"
        )
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        parts_of = zip(numbers, (3600, 60, 1), strict=False)
        seconds = 86_400 * int(days) + sum(n * factor for n, factor in parts_of)
    else:  # minutes, minutes:seconds, hours:minutes:seconds
        factors = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(numbers)]
        seconds = sum(n * f for n, f in zip(numbers, factors, strict=True))
    if seconds < 60:
        raise ConfigError(f"--time {shown(text)}: expected at least one minute")
    return seconds // 60


def withdraw(jobs: Sequence[Job]) -> int:
    """Take jobs out of Slurm's queue for good; how many are in it still.

    Also those that begin, and those that are about to queue themselves again.
    """
    waiting = queued()
    if ids := [job.batch_id for job in jobs if job.batch_id in waiting]:
        _ask("scancel", *ids)
    return len(ids)


def submit(directory: SweepDir, jobs: Sequence[Job], limits: Limits, *, at_once: int | None) -> int:
    """Make runs and submit them as one array, but for those that are queued; the exit code."""
    parameters = limits.parameters()
    waiting = queued()
    fresh = [job for job in jobs if job.batch_id not in waiting]
    if len(fresh) < len(jobs):
        print(f"{len(jobs) - len(fresh)} runs are queued already", flush=True)
    if not fresh:
        return 0
    sweep = directory.read()
    runs = [work.make(directory, sweep, job) for job in fresh]
    threads = limits.cpus // sweep.devices
    options = [work.thread_settings(sweep, job, threads) for job in fresh]
    executor = import_module("submitit").SlurmExecutor(
        folder=str(directory.batch), max_num_timeout=TIMES
    )
    executor.update_parameters(
        job_name=directory.name, array_parallelism=at_once or len(fresh), **parameters
    )
    paths = [str(run.path) for run in runs]
    devices = [sweep.devices] * len(fresh)
    submitted = executor.map_array(Training(), paths, options, devices)
    for job, made in zip(fresh, submitted, strict=True):
        sweep = sweep.changed(job.name, batch_id=str(made.job_id))
    directory.write(sweep)
    first = str(submitted[0].job_id).partition("_")[0]
    print(f"submitted {len(fresh)} runs as job {first}: `squeue --me` lists them", flush=True)
    print(f"watch them with `dreamer-async watch {directory.name}`", flush=True)
    return 0


def queued() -> set[str]:
    """Identifiers of this user's jobs that wait or run; those of arrays one by one."""
    return set(_ask("squeue", "--me", "--array", "--noheader", "--format=%i").split())


def _ask(program: str, *words: str) -> str:
    """What a program of Slurm prints; ConfigError where there is none, or it does not answer."""
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        text = f"there is no {program} here: --on slurm needs a machine of the cluster"
        raise ConfigError(text) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{program} does not answer") from None
    if done.returncode:
        raise ConfigError(f"{program} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


# -- inside a job ----------------------------------------------------------------------------


class Training:
    """What a job does: submitit calls it, asks it for a checkpoint, and calls it again."""

    def __call__(self, path: str, overrides: Sequence[str] = (), devices: int = 1) -> str:
        """Train a run until all steps are done, or somebody stops it; how it ended.

        RuntimeError where it failed, so that Slurm's job does, too.
        """
        run = RunDir(Path(path))
        if how_it_ended(run)[0] == "completed":
            return "completed"
        code = self._train(run, overrides, devices)
        if code:
            raise RuntimeError(f"{run.name} failed (exit code {code}); its log: {run.log_path}")
        state, why = how_it_ended(run)
        if state != "completed" and "signal" in why:
            _wait_to_be_ended()  # SIGTERM: preempted, and queued again by Slurm, or cancelled
        return state

    def checkpoint(self, path: str, overrides: Sequence[str] = (), devices: int = 1) -> Any:
        """Let the run save, and say how the job goes on: as it began."""
        child = _children.get(path)
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # the other wait reaps it
        return import_module("submitit").helpers.DelayedSubmission(self, path, overrides, devices)

    def _train(self, run: RunDir, overrides: Sequence[str], devices: int) -> int:
        """Run the trainer; its exit code."""
        log = work.open_log(run)
        before = signal.signal(SIGNAL, signal.SIG_IGN)  # it goes to every process of a job
        try:
            child = subprocess.Popen(
                work.trainer(run, overrides, devices),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
            _children[str(run.path)] = child.pid
        finally:
            signal.signal(SIGNAL, before)
            os.close(log)
        while child.poll() is None:  # a signal's handler may come in between
            time.sleep(0.2)
        _children.pop(str(run.path), None)
        return child.returncode


_children: dict[str, int] = {}
"""Process id of the trainer of each run that this process trains."""


def how_it_ended(run: RunDir) -> tuple[str, str]:
    """How a run ended the last time, and why; two empty texts if it never did."""
    try:
        size = run.events_path.lstat().st_size
    except OSError:
        return "", ""
    records, _ = read_events(run.events_path, max(0, size - (1 << 20)))
    ends = [record.event for record in records if isinstance(record.event, RunFinished)]
    return (ends[-1].reason, ends[-1].message) if ends else ("", "")


def _wait_to_be_ended() -> None:
    """Leave it to Slurm what becomes of the job, which would be over if this came back."""
    time.sleep(PATIENCE)
