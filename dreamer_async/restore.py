"""What a checkpoint holds of a run, and how a stopped or killed run goes on.

A checkpoint is newer or older than the replay ring: the ring is an mmapped file and survives
kill -9 up to its last step, a checkpoint is a moment in the past. So env_steps grows by what
the ring holds beyond the checkpoint, the limiter's debt comes from the checkpoint, and the
updates that those extra steps had paid for are forgiven and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from dreamer_async import checkpoint
from dreamer_async.agent.trainer import check_state
from dreamer_async.aio import OwnedThread
from dreamer_async.collector import Collector
from dreamer_async.config import Config, changed, from_dict, to_dict
from dreamer_async.device import cpu_threads
from dreamer_async.events import Checkpointed, Resumed
from dreamer_async.learner import Learner
from dreamer_async.run_dir import RunDir, read_json, write_json_atomic
from dreamer_async.schema import shown

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
        collector: Collector,
        place: Path,
    ) -> None:
        """`run_dir` may be known by a descriptor; `place` is the path that people know."""
        self._run_dir = run_dir
        self._config = config
        self._learner = learner
        self._collector = collector
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
        await self._collector.ratio.compiled()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), seconds)
            if self._asked.is_set() or self._position != self._saved_at:
                self._asked.clear()
                await self.save(learner_thread, writer_thread)

    async def save_if_due(
        self, seconds: float, learner_thread: OwnedThread, writer_thread: OwnedThread
    ) -> None:
        """Save when asked or when the last save is this long ago; for the lockstep loop."""
        due = time.monotonic() - self._saved >= seconds and self._position != self._saved_at
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
            if self._position != self._saved_at:
                raise NotSaved(error.errno, self._lost(error)) from error

    def kept(self, path: str, updates: int) -> None:
        """Remember the checkpoint that the run goes on from."""
        self._kept = (path, updates) if path else None

    async def _save(
        self, learner_thread: OwnedThread, writer_thread: OwnedThread, *, exact: bool
    ) -> None:
        began = self._saved = time.monotonic()
        counters = self.counters()
        tensors = await learner_thread.run(self._learner.state)
        counters |= {"updates": self._learner.updates, "skipped": self._learner.skipped}
        if exact:
            tensors |= self._lockstep_state()
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
        for film in self._run_dir.pictures.glob("*"):
            with contextlib.suppress(OSError):
                freed += film.stat().st_size
                film.unlink()
        return freed

    def _lost(self, error: OSError) -> str:
        """What is lost with the last checkpoint, and what would help."""
        where, updates = self._kept or ("", 0)
        lost = f"{self._learner.updates - updates:,} updates are lost"
        since = f", all since {where} (update {updates:,})" if where else ": there is no other"
        name = self._run_dir.name
        return (
            f"the last checkpoint could not be saved ({_why(error)}): {lost}{since}; "
            f"make room on the disk, then `dreamer-async resume {name}` goes on from there"
        )

    @property
    def _position(self) -> tuple[int, int]:
        """Where the run stands; while it is paused there is nothing new to save."""
        return self._collector.ratio.inserted, self._learner.updates

    def counters(self) -> dict[str, Any]:
        """The part of the manifest that says where the run stands."""
        ratio, replay = self._collector.ratio, self._collector.replay
        return {
            "env_steps": ratio.inserted,
            "score": self._collector.score,
            "updates": self._learner.updates,
            "skipped": self._learner.skipped,
            "ratio_started": ratio.started,
            "ratio_debt": ratio.debt,
            "replay_steps": replay.steps,
            "replay": replay.state(),
        }

    def _lockstep_state(self) -> dict[str, Tensor]:
        """In lockstep nothing is in flight, so that acting can be continued exactly too."""
        if not self._config.train.sync:
            return {}
        snapshot = self._collector.env.snapshot()
        if snapshot is None:
            return {}
        env = {f"env/{name}": torch.from_numpy(np.array(a)) for name, a in snapshot.items()}
        return env | self._collector.actor.state() | self._collector.state()

    def _write(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> Path:
        manifest = {
            **counters,
            "config": to_dict(self._config),
            "torch": torch.__version__,
            "threads": cpu_threads(self._config),
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
        self._collector.telemetry.warn(f"checkpoint not saved: {_why(error)}{then}", "error")

    def _announce(self, path: Path, counters: dict[str, Any], seconds: float) -> None:
        """Say what is in the checkpoint; the learner may have gone on while it was written."""
        size = (path / checkpoint.STATE).stat().st_size
        relative = str(path.relative_to(self._run_dir.path))
        self._kept = relative, counters["updates"]
        self._collector.telemetry.emit(
            Checkpointed(relative, counters["env_steps"], counters["updates"], size, seconds)
        )


def _why(error: OSError) -> str:
    """What the system says, without the path that a run in training is known by to itself."""
    return str(error.strerror or error)


def restore(
    run_dir: RunDir, config: Config, learner: Learner, collector: Collector
) -> tuple[Resumed, list[str]]:
    """Bring back the newest checkpoint that verifies and what the ring holds, in memory.

    Also returns warnings: what keeps a lockstep run from going on bit for bit. Raises
    CheckpointError when checkpoints exist and none verifies, or the newest that does holds
    something else than this run needs; nothing on disk is changed.
    """
    found, skipped = find(run_dir)
    if found is None:
        return _without_checkpoint(collector), []
    try:
        counters = checkpoint.Counters.read(found.manifest)
        _check_generator(found.tensors, "learner/generator")
        learner.load_state(found.tensors, found.manifest)
        lost, ahead = _restore_counters(collector, counters, found.manifest["replay"])
        if config.train.sync and not lost and not ahead and "policy/generator" in found.tensors:
            _restore_lockstep(collector, found.tensors)
    except (KeyError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error
    relative = str(found.path.relative_to(run_dir.path))
    inserted = collector.ratio.inserted
    resumed = Resumed(relative, inserted, learner.updates, lost, tuple(skipped))
    edited = _edited(run_dir, config, found.manifest)
    return resumed, [*edited, *_differences(config, counters)]


def find(run_dir: RunDir) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """Return what `checkpoint.newest` does; raises CheckpointError if there are none but bad ones.

    A run that was killed before its first checkpoint has none at all, and may go on.
    """
    found, skipped = checkpoint.newest(run_dir.checkpoints)
    if found is None and skipped:
        raise checkpoint.CheckpointError("no valid checkpoint: " + "; ".join(skipped))
    return found, skipped


def _edited(run_dir: RunDir, config: Config, manifest: Mapping[str, Any]) -> list[str]:
    """What stands in config.json, and is used, but not where the checkpoint was saved."""
    try:
        saved, stored = from_dict(manifest["config"]), from_dict(read_json(run_dir.config_path))
    except (OSError, KeyError, ValueError):
        return []
    asked = changed(stored, config)  # this command says something else again
    return [
        f"{key} is {shown(now)} in config.json and was {shown(was)} when the "
        "checkpoint was saved: config.json counts"
        for key, (was, now) in changed(saved, stored).items()
        if key not in asked
    ]


def _differences(config: Config, counters: checkpoint.Counters) -> list[str]:
    """What makes the next updates differ from those of a run that had not been stopped."""
    now = {"torch": str(torch.__version__), "threads": cpu_threads(config)}
    return [
        f"saved with {name} {shown(was)}, goes on with {value}: the last digits will differ"
        for name, value in now.items()
        if config.train.sync and (was := getattr(counters, name)) != value
    ]


def _check_generator(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError if a state is none; that of a GPU's generator is known by its type alone."""
    state, scratch = tensors[name], torch.Generator()
    if state.dtype != torch.uint8 or state.dim() != 1:
        raise ValueError(f"{name} is no state of a generator, but {state.dtype} {state.shape}")
    if state.numel() != scratch.get_state().numel():
        return
    try:
        scratch.set_state(state)
    except RuntimeError as error:
        raise ValueError(f"{name} is no state of a generator ({error})") from error


def _without_checkpoint(collector: Collector) -> Resumed:
    """A run that was killed before its first checkpoint keeps its replay and starts anew."""
    ratio, replay = collector.ratio, collector.replay
    ratio.inserted = replay.steps
    lost = 0.0
    if replay.windows >= collector.prefill:
        ratio.start()
        lost = _beyond_prefill(collector) * ratio.ratio / ratio.cost
    return Resumed("", ratio.inserted, 0, lost)


def _beyond_prefill(collector: Collector) -> int:
    """Steps after those that completed the prefill: each of them had made one more window."""
    replay = collector.replay
    before = replay.spec.num_envs * (replay.spec.length - 1) + collector.prefill
    return max(0, replay.steps - before)


def _restore_counters(
    collector: Collector, counters: checkpoint.Counters, state: Any
) -> tuple[float, int]:
    """Restore replay cursors and limiter; return the updates that are forgiven, and for how many
    steps the ring is ahead of the checkpoint.

    Forgiven is what these steps had paid for, and a debt larger than any that this run can get
    into (the batch was larger, or somebody wrote it there).
    """
    ratio, replay = collector.ratio, collector.replay
    same_ring = replay.load_state(state)
    # A power failure may leave the ring behind its checkpoint.
    fresh = max(0, replay.steps - (counters.replay_steps if same_ring else 0))
    ratio.inserted = counters.env_steps + fresh
    most = ratio.bound + collector.env.num_envs * ratio.ratio
    debt = min(max(0.0, counters.ratio_debt), most)
    if counters.ratio_started and replay.windows >= collector.prefill:
        ratio.start(debt)
    elif replay.windows >= collector.prefill:
        ratio.start()
    forgiven = max(0.0, counters.ratio_debt - debt)
    paid = fresh if counters.ratio_started else min(fresh, _beyond_prefill(collector))
    return (paid * ratio.ratio + forgiven) / ratio.cost, fresh


def _restore_lockstep(collector: Collector, tensors: dict[str, Tensor]) -> None:
    own = collector.actor.state() | collector.state()
    check_state(own, {n: t for n, t in tensors.items() if n.startswith(("policy/", "episodes/"))})
    _check_generator(tensors, "policy/generator")
    snapshot = checkpoint.under(tensors, "env/")
    collector.env.restore({name: tensor.numpy() for name, tensor in snapshot.items()})
    collector.actor.load_state(tensors)
    collector.load_state(tensors)
    collector.running = True
