"""When a run is saved, and what happens where that fails.

What is saved is the learner's copy of its state, made in its thread; writing it takes a thread of
its own. A full disk is a warning while the run goes on, and costs older files at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from dreamer_async.config import Config, to_dict
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.machine.device import cpu_threads
from dreamer_async.run import saved_spec
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.learner import Learner
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.ranks.team import SAVE, Team
from dreamer_async.run.run_state import RunState
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.store import checkpoint
from dreamer_async.store.events import Checkpointed
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_dir import RunDir

SAVE_FAILURES = 3
"""Saves in a row that may fail before the run ends."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where deleting something helps."""


class NotSaved(OSError):
    """The last checkpoint of a run is not where it should be; the message says what is lost."""

    def __str__(self) -> str:
        """Say it without the error number that OSError would add."""
        return str(self.strerror)


class Saver:
    """Saves the run: captures in the learner thread, writes in a thread of its own."""

    def __init__(
        self,
        run_dir: RunDir,
        config: Config,
        learner: Learner,
        ratio: TrainRatio,
        state: RunState,
        telemetry: Telemetry,
        place: Path,
        spec: EnvSpec,
        team: Team | None = None,
    ) -> None:
        """`run_dir` may be known by a descriptor; `place` is the path that people know."""
        self._spec = saved_spec.encode(spec)
        self._run_dir = run_dir
        self._config = config
        self._learner = learner
        self._ratio = ratio
        self._state = state
        self._telemetry = telemetry
        self._team = team or Team()
        self._failures = 0
        self._saved = time.monotonic()
        self._saved_at = (-1, -1)
        self._asked = asyncio.Event()
        self._place = place
        self._kept: tuple[str, int] | None = None
        """Newest checkpoint and its update."""

    def ask(self) -> None:
        """Ask `save_every` for a checkpoint now."""
        self._asked.set()

    async def asked(self) -> bool:
        """Wait until somebody asks for a checkpoint."""
        return await self._asked.wait()

    async def save_every(
        self, seconds: float, learner_thread: OwnedThread, writer_thread: OwnedThread
    ) -> None:
        """Save now and then, and when asked, until cancelled.

        While updates are compiled the learner has nothing new, and no time.
        """
        await self._ratio.compiled()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), seconds)
            if self._asked.is_set() or self._state.position != self._saved_at:
                self._asked.clear()
                await self.save(learner_thread, writer_thread)

    async def save_if_due(
        self, seconds: float, learner_thread: OwnedThread, writer_thread: OwnedThread
    ) -> None:
        """Save when asked or when the last save is this long ago; for the lockstep loop."""
        due = time.monotonic() - self._saved >= seconds and self._state.position != self._saved_at
        if self._asked.is_set() or due:
            self._asked.clear()
            await self.save(learner_thread, writer_thread)

    async def save(self, learner_thread: OwnedThread, writer_thread: OwnedThread) -> None:
        """Save now; a full disk is a warning until it has happened several times in a row."""
        try:
            await self._save(learner_thread, writer_thread, exact=True)
        except OSError as error:
            self._failed(error)

    async def save_last(
        self, learner_thread: OwnedThread, writer_thread: OwnedThread, *, exact: bool
    ) -> None:
        """Save what a run that ends has learned; where the disk refuses, make room and try again.

        `exact`: nothing is in flight, so that a lockstep run can go on bit for bit. Raises NotSaved
        where something is lost.
        """
        if learner_thread.left or self._learner.failure:  # nothing learned, or nothing to save
            return
        if self._team.broken:  # the ranks cannot compare what they hold any more
            return
        if self._run_dir.removed():
            await self._save_elsewhere(learner_thread, writer_thread)
        try:
            await self._save(learner_thread, writer_thread, exact=exact)
        except OSError as error:
            freed = await writer_thread.run(self._make_room, error)
            self._warn_failed(error, f"; trying once more with {freed / 1e6:.1f} MB freed")
        else:
            return
        try:
            await self._save(learner_thread, writer_thread, exact=exact)
        except OSError as error:
            if self._state.position != self._saved_at:
                raise NotSaved(error.errno, self._lost(error)) from error

    def kept(self, path: str, updates: int) -> None:
        """Remember the checkpoint that the run goes on from."""
        self._kept = (path, updates) if path else None

    async def _save(
        self, learner_thread: OwnedThread, writer_thread: OwnedThread, *, exact: bool
    ) -> None:
        began = self._saved = time.monotonic()
        counters = self._state.counters()
        order = self._team.tell(SAVE)
        tensors, learned = await learner_thread.run(self._state.learned)
        counters |= learned | await self._team.others(order, tensors, writer_thread)
        if exact:
            tensors |= self._state.acting()
        path = await writer_thread.run(self._write, tensors, counters)
        self._failures = 0
        self._saved_at = counters["env_steps"], counters["updates"]
        self._announce(path, counters, time.monotonic() - began)

    async def _save_elsewhere(
        self, learner_thread: OwnedThread, writer_thread: OwnedThread
    ) -> NoReturn:
        """Keep the last checkpoint of a run whose directory is gone in a new one of its name.

        Raises NotSaved in any case: the stream is lost, and the replay if it was there.
        """
        refuge = self._place if not self._place.exists() else Path(f"{self._place}-rescued")
        gone = f"the directory of the run was removed while it trained: {self._place}"
        self._run_dir = RunDir(refuge)
        try:
            refuge.mkdir(parents=True)
            write_json_atomic(self._run_dir.config_path, to_dict(self._config))
            await self._save(learner_thread, writer_thread, exact=False)
        except OSError as error:
            lost = f"{gone}; its last checkpoint could not be kept in {refuge} ({_why(error)})"
            raise NotSaved(errno.ENOENT, lost) from error
        kept = f"its last checkpoint is kept in {refuge}"
        if not self._config.replay.directory:
            kept += ", its replay is lost"
        raise NotSaved(errno.ENOENT, f"{gone}; {kept}")

    def _make_room(self, error: OSError) -> int:
        """Delete what is worth less than a last checkpoint, if that helps; the bytes freed."""
        if error.errno not in FULL:
            return 0
        freed = checkpoint.make_room(self._run_dir.checkpoints)
        for name in ("film.npz", "dream.gif"):  # what else is there is not ours
            film = self._run_dir.pictures / name
            with contextlib.suppress(OSError):
                freed += film.stat().st_size
                film.unlink()
        return freed

    def _lost(self, error: OSError) -> str:
        """What is lost with the last checkpoint, and what would help."""
        where, updates = self._kept or ("", 0)
        lost = f"{self._learner.updates - updates:,} updates are lost"
        since = f", all since {where} (update {updates:,})" if where else ": there is no other"
        name = self._run_dir.place().name
        return (
            f"the last checkpoint could not be saved ({_why(error)}): {lost}{since}; "
            f"free some disk space, then continue with `dreamer-async resume {name}`"
        )

    def _write(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> Path:
        manifest = {
            **counters,
            "config": to_dict(self._config),
            saved_spec.KEY: self._spec,
            "torch": torch.__version__,
            "threads": cpu_threads(self._config),
            "native": self._learner.place.library,
        }
        keep = self._config.train.keep_checkpoints
        return checkpoint.save(
            self._run_dir.checkpoints, counters["env_steps"], tensors, manifest, keep
        )

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        self._warn_failed(error)
        if self._failures >= SAVE_FAILURES:
            raise error

    def _warn_failed(self, error: OSError, then: str = "") -> None:
        self._telemetry.warn(f"checkpoint not saved: {_why(error)}{then}", "error")

    def _announce(self, path: Path, counters: dict[str, Any], seconds: float) -> None:
        """Say what is in the checkpoint; the learner may have gone on while it was written."""
        size = (path / checkpoint.STATE).stat().st_size
        relative = str(path.relative_to(self._run_dir.path))
        self._kept = relative, counters["updates"]
        self._telemetry.emit(
            Checkpointed(relative, counters["env_steps"], counters["updates"], size, seconds)
        )


def _why(error: OSError) -> str:
    """What the system says, without the path that a run in training is known by to itself."""
    return str(error.strerror or error)
