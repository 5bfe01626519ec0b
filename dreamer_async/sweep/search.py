"""Which runs a search asks for: Optuna chooses, and gives up what is behind at equal steps.

What it knows is kept in the directory of the sweep. Nobody but the process that holds the sweep's
lock opens it, so that it needs no lock of its own, which a kill would leave behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from dreamer_async.store.events import Episode, EventReader
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import RECENT, load_config
from dreamer_async.store.sweep_dir import Job, Sweep, SweepDir
from dreamer_async.sweep import work
from dreamer_async.sweep.ranges import Range, parse_range
from dreamer_async.sweep.work import PRUNED, Standing

RUNGS = 20
"""Parts of a run after each of which it is compared with the others."""
FIRST_RUNG = 4
"""Nothing is given up before a fifth of its steps: returns say little until then."""
FIRST_TRIALS = 5
"""As many runs have to be complete before any is given up."""
POLL_SECONDS = 2.0
OWN = ("size", "task", "seed")
"""What a search fixes; the rest of its words are ranges."""
STUDY = "sweep"


def typical(sweep: Sweep) -> Job:
    """A run of a search as it may come, for what one costs."""
    values = {}
    for key, each in ranges(sweep).items():
        values[key] = each.choices[0] if each.choices else _spelled(each.low)
    return _job(sweep, 0, values)


def ranges(sweep: Sweep) -> dict[str, Range]:
    """What is searched."""
    return {k: parse_range(k, text) for k, text in sweep.search.items() if k not in OWN}


def _job(sweep: Sweep, number: int, values: dict[str, str]) -> Job:
    fixed = sweep.search
    return Job(f"trial-{number:04}", fixed["task"], fixed["size"], int(fixed["seed"]), values)


def _spelled(value: float) -> str:
    return repr(value)


class Search:
    """The runs of a search, one after the other; a source of runs for `Local`."""

    def __init__(
        self, directory: SweepDir, cut_off: Sequence[Job], say: Callable[[str], None]
    ) -> None:
        self._directory, self._say = directory, say
        self._cut_off = list(cut_off)
        self._storage = _storage(directory)
        self._study = _study(self._storage)
        self._catch_up()

    def next(self) -> Job | None:
        """First the runs that were cut off, then new ones until there are as many as asked for."""
        if self._cut_off:
            return self._cut_off.pop(0)
        sweep = self._directory.read()
        if len(sweep.jobs) >= sweep.trials:
            return None
        trial = self._study.ask()
        values = {key: _suggest(trial, key, each) for key, each in ranges(sweep).items()}
        job = _job(sweep, trial.number, values)
        self._directory.write(_with(sweep, job))
        self._say(f"{job.name}: {job.variant}")
        return job

    async def follow(self, job: Job, run: RunDir) -> bool:
        """Report the return at each rung; True where it is behind the median of the others."""
        reader, recent = EventReader(run.events_path), deque[float](maxlen=RECENT)
        steps = load_config(run).train.steps
        if self._known(job).state.is_finished():  # by a version that took a failure for an end
            return await asyncio.Future()
        trial = self._trial(job)
        rung = 0
        while True:
            for record in reader.read():
                event = record.event
                if not isinstance(event, Episode) or event.score is None:
                    continue
                while event.env_steps * RUNGS >= (rung + 1) * steps and recent:
                    rung += 1
                    if rung not in self._known(job).intermediate_values:
                        trial.report(sum(recent) / len(recent), rung)
                    if rung < RUNGS and trial.should_prune():
                        self._directory.write(self._directory.read().changed(job.name, pruned=True))
                        return True
                recent.append(event.score)
            await asyncio.sleep(POLL_SECONDS)

    def ended(self, job: Job, standing: Standing) -> None:
        """Tell Optuna how a run ended; one that was stopped or failed may go on some day."""
        values: dict[str, Any]
        if standing.state == "completed" and standing.recent_return is not None:
            values = {"values": standing.recent_return}
        elif standing.state == PRUNED:
            values = {"state": _optuna().trial.TrialState.PRUNED}
        elif standing.state == "completed":
            values = {"state": _optuna().trial.TrialState.FAIL}
        else:
            return
        self._study.tell(number_of(job), **values, skip_if_finished=True)

    def best(self) -> tuple[str, float] | None:
        """Settings and return of the best run that is complete; None before there is one."""
        done = self._study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.COMPLETE,))
        if not done:
            return None
        best = max(done, key=lambda trial: trial.values[0])
        return " ".join(f"{key}={value}" for key, value in best.params.items()), best.values[0]

    def _catch_up(self) -> None:
        """Tell Optuna what it was not told because somebody was killed in between."""
        sweep = self._directory.read()
        made = {number_of(job) for job in sweep.jobs}
        for trial in self._study.get_trials(
            deepcopy=False, states=(_optuna().trial.TrialState.RUNNING,)
        ):
            if trial.number not in made:
                self._study.tell(trial.number, state=_optuna().trial.TrialState.FAIL)
        for job in sweep.jobs:
            self.ended(job, work.stand(self._directory, job))

    def _trial(self, job: Job) -> Any:
        study = self._storage.get_study_id_from_name(STUDY)
        number = number_of(job)
        return _optuna().trial.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def _known(self, job: Job) -> Any:
        """What Optuna has kept of a run's trial."""
        return self._study.get_trials(deepcopy=False)[number_of(job)]


def number_of(job: Job) -> int:
    """The number of a run's trial."""
    return int(job.name.rpartition("-")[2])


def _with(sweep: Sweep, job: Job) -> Sweep:
    return replace(sweep, jobs=(*sweep.jobs, job))


def _suggest(trial: Any, key: str, each: Range) -> str:
    if each.choices:
        return str(trial.suggest_categorical(key, each.choices))
    if each.whole:
        return str(trial.suggest_int(key, int(each.low), int(each.high), log=each.log))
    return _spelled(trial.suggest_float(key, each.low, each.high, log=each.log))


@cache
def _optuna() -> Any:
    """Optuna, which is there with the extra `search`, and says no more than warnings."""
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(directory: SweepDir) -> Any:
    storages = _optuna().storages
    backend = import_module("optuna.storages.journal").JournalFileBackend
    return storages.JournalStorage(backend(str(directory.search_path), lock_obj=_NoLock()))


def _study(storage: Any) -> Any:
    optuna = _optuna()
    return optuna.create_study(
        storage=storage,
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(),
        pruner=optuna.pruners.MedianPruner(FIRST_TRIALS, n_warmup_steps=FIRST_RUNG),
    )


class _NoLock:
    """What Optuna asks before it writes: the sweep's own lock keeps all others out."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing was taken."""
