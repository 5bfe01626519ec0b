"""One run of a sweep: how it stands, making it, and the command line of its trainer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from dreamer_async.config import Config, ConfigError, resolve, to_dict
from dreamer_async.machine.interpreter import command
from dreamer_async.store.regular_file import open_regular
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import load_config, summarize
from dreamer_async.store.sweep_dir import Job, Sweep, SweepDir

WAITING = "waiting"
PRUNED = "pruned"
OVER = ("completed", "failed", PRUNED)
"""States in which a run of a sweep is not started again."""


@dataclass(frozen=True)
class Standing:
    """One run of a sweep and how far it is."""

    job: Job
    state: str
    """waiting, pruned, or as `runs` has it: a phase, completed, stopped, failed or killed."""
    env_steps: int = 0
    steps: int = 0
    recent_return: float | None = None
    running: bool = False
    """Somebody trains in it now."""
    reason: str = ""
    """Why it cannot be read."""

    @property
    def to_do(self) -> bool:
        """Whether it is to be started, or gone on with."""
        return self.state not in OVER and not self.running


def stand(directory: SweepDir, job: Job) -> Standing:
    """How one run stands; one that cannot be read has failed, and says why."""
    run = directory.run(job)
    if not run.exists():
        return Standing(job, PRUNED if job.pruned else WAITING)
    try:
        run.refuse_links()
        now = summarize(run)
    except (ValueError, OSError) as error:
        return Standing(job, "failed", reason=str(error))
    running = now.owner is not None
    state = PRUNED if job.pruned and not running else now.state
    return Standing(job, state, now.env_steps, now.steps, now.recent_return, running)


def config_of(sweep: Sweep, job: Job) -> Config:
    """The settings of one run; ConfigError where this version knows them no more."""
    own = [f"{key}={value}" for key, value in job.settings.items() if key != "size"]
    overrides = [*sweep.settings, *own, f"train.seed={job.seed}"]
    return resolve(sweep.suite, job.task, size=job.size, overrides=overrides)


def make(directory: SweepDir, sweep: Sweep, job: Job) -> RunDir:
    """The run, made if there is none yet: all of it or nothing, whoever is killed meanwhile."""
    run = directory.run(job)
    if not run.exists():
        config = to_dict(config_of(sweep, job))
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            RunDir.create(directory.path, job.name, config=config, now=None)
    if not run.exists():
        raise ConfigError(f"{run.path} exists but is not a run: move it away or delete it")
    run.refuse_links()
    return run


def trainer(run: RunDir, overrides: Sequence[str] = (), devices: int = 1) -> list[str]:
    """Command line of a run's trainer, which goes on with it where it has begun.

    On several devices it is a launcher of ranks. A run that has replays goes on with as many
    devices as these are for.
    """
    begun = run.events_path.exists()
    devices = (begun and run.shares(load_config(run).replay.directory)) or devices
    ranks = [f"--devices={devices}"] if devices > 1 else []
    options = [*(["--resume"] if begun else []), *(f"--set={text}" for text in overrides)]
    return command("dreamer_async", "trainer", *ranks, *options, run.path)


def open_log(run: RunDir) -> int:
    """A descriptor of the run's log, for what its trainer has to say."""
    return open_regular(run.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def thread_settings(sweep: Sweep, job: Job, threads: int) -> list[str]:
    """Give a run's learner, or each of its ranks, a share of the processor.

    Unless the sweep says how many threads it takes.

    A sweep that is carried out otherwise today gives other shares, also to runs that go on.
    """
    chosen = [*sweep.settings, *(f"{key}=" for key in job.settings)]
    if any(text.startswith("train.threads=") for text in chosen):
        return []
    return [f"train.threads={threads}"]
