"""A run, from a program: wait for it, stop it, read what it says.

Everything goes through the run's directory, as it does for the dashboard and the commands, so that
a run may have been started by any of them, on this machine, and goes on when this program ends.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamer_async.cli.launch import log_tail
from dreamer_async.config.arguments import checked
from dreamer_async.python.settings import root_of
from dreamer_async.store.episodes import read_episodes
from dreamer_async.store.events import (
    Checkpointed,
    Event,
    EventReader,
    RunFinished,
    RunStarted,
)
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import last_records

POLL_SECONDS = 0.05
"""How often files are looked at while something is waited for."""


class RunFailed(RuntimeError):
    """A run failed or was killed; the message says how and ends with the end of its log."""


class Returns(NamedTuple):
    """Scores of finished training episodes, in the order in which these ended."""

    env_steps: NDArray[np.int64]
    """[N] agent steps of the whole run when each episode ended."""
    returns: NDArray[np.float64]
    """[N] undiscounted sum of raw rewards; NaN where it was not finite."""


class _Patience:
    """How long to wait, from now on, whatever is waited for first and whatever then."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


class Run:
    """One run on disk, whether it is being trained or not."""

    def __init__(
        self,
        run_dir: RunDir,
        trainer: subprocess.Popen[bytes] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        # `find` is for others; `trainer` is a process that was just started
        self.notes = notes
        """Lines about settings that differ on this machine or deserve a look; mostly empty."""
        self._run_dir = run_dir
        self._trainer = trainer

    @classmethod
    @checked
    def find(cls, ref: str | Path = "last", runs_dir: str | Path | None = None) -> Run:
        """A run by its name, its path or `last`; RunNotFound (a ValueError) names close ones."""
        return cls(RunDir.find(root_of(runs_dir), str(ref)))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name below the directory of all runs."""
        return self._run_dir.name

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._run_dir.path

    @property
    def running(self) -> bool:
        """Whether a trainer is running in it, or starting."""
        starting = self._trainer is not None and self._trainer.poll() is None
        return starting or self._run_dir.owner() is not None

    @checked
    def wait(self, timeout: float | None = None) -> RunFinished:
        """Wait for the end and return its reason (completed or stopped), steps and updates.

        Raises RunFailed if the run failed or was killed, and TimeoutError after `timeout` seconds;
        the run then continues.
        """
        return self._wait(_Patience(timeout))

    def _wait(self, patience: _Patience) -> RunFinished:
        self._until(lambda: not self.running, patience, "has not ended")
        code = 0 if self._trainer is None else self._trainer.wait()
        ended = self._end()
        if code or ended is None or ended.reason == "failed":
            raise RunFailed(self._how_it_failed(code, ended))
        return ended

    @checked
    def stop(self, timeout: float | None = 120.0) -> RunFinished:
        """Make the run save and end, wait for that and return how it ended, as `wait` does."""
        patience = _Patience(timeout)
        if self._awaited(patience):
            self._run_dir.request("stop")
        return self._wait(patience)

    def events(self) -> Iterator[Event]:
        """Iterate over all events so far and then over new ones as they come, until the run ends.

        Events are the dataclasses of `dreamer_async.store.events`, which differ by their type.
        If no trainer is running, the iterator ends after the events so far.
        """
        reader = EventReader(self._run_dir.events_path)
        while True:
            running = self.running  # before reading: what is said last is read, too
            records = reader.read()
            yield from (record.event for record in records)
            if not records:
                if not running:
                    return
                time.sleep(POLL_SECONDS)

    def returns(self) -> Returns:
        """Scores of the training episodes so far, without those that a resume has lost."""
        episodes = read_episodes(self._run_dir.events_path)
        scores = [np.nan if e.score is None else e.score for e in episodes]
        return Returns(np.array([e.env_steps for e in episodes], np.int64), np.array(scores, float))

    @checked
    def checkpoint(self, timeout: float | None = 120.0) -> Path:
        """Path of a checkpoint that `dreamer_async.load` takes.

        A run that is being trained saves one now; otherwise it is the newest that verifies.
        Raises TimeoutError, and CheckpointError where there is none.
        """
        from dreamer_async.store import checkpoint  # which brings PyTorch

        patience = _Patience(timeout)
        if self._awaited(patience):
            reader = EventReader(self._run_dir.events_path)
            while reader.read():
                pass
            self._run_dir.request("checkpoint")
            saved = self._saved(reader, patience)
            if saved is not None:
                return saved
        return checkpoint.need(self.path).path

    def _saved(self, reader: EventReader, patience: _Patience) -> Path | None:
        """The next checkpoint that is announced; None if the run ends instead."""
        found: list[Path] = []

        def look() -> bool:
            running = self.running
            events = [record.event for record in reader.read()]
            found.extend(self.path / e.path for e in events if isinstance(e, Checkpointed))
            return bool(found) or not running

        self._until(look, patience, "has saved no checkpoint")
        return found[-1] if found else None

    def _awaited(self, patience: _Patience) -> bool:
        """Wait until a trainer that was started hears requests; False if there is none."""

        def answered() -> bool:
            return self._run_dir.owner() is not None or not self.running

        self._until(answered, patience, "has not begun")
        return self._run_dir.owner() is not None

    def _until(self, ready: Callable[[], bool], patience: _Patience, what: str) -> None:
        while not ready():
            if patience.over:
                raise TimeoutError(
                    f"{self.name} {what} after {patience.seconds:g} s; it keeps running"
                )
            time.sleep(POLL_SECONDS)

    def _end(self) -> RunFinished | None:
        """How the newest trainer ended; None if it said nothing."""
        records = last_records(self._run_dir)
        said = [r.event for r in records if isinstance(r.event, RunStarted | RunFinished)]
        last = said[-1] if said else None
        return last if isinstance(last, RunFinished) else None

    def _how_it_failed(self, code: int, ended: RunFinished | None) -> str:
        if ended is not None and ended.reason == "failed":
            how = f"failed (exit code {ended.exit_code}): {ended.message}"
        elif code > 0:
            how = f"failed (exit code {code})"
        else:
            how = f"was killed by signal {-code}" if code else "did not end by itself"
        words = "\n".join(["", *log_tail(self._run_dir)])
        return f"{self.name} {how}; its log, {self._run_dir.log_path}, ends with:{words}"
