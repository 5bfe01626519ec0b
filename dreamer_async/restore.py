"""What a checkpoint holds of a run, and how a stopped or killed run goes on.

A checkpoint is newer or older than the replay ring: the ring is an mmapped file and survives
kill -9 up to its last step, a checkpoint is a moment in the past. So env_steps grows by what
the ring holds beyond the checkpoint, the limiter's debt comes from the checkpoint, and the
updates that those extra steps had paid for are forgiven and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer_async import checkpoint
from dreamer_async.agent.update import check_state
from dreamer_async.aio import OwnedThread
from dreamer_async.collector import Collector
from dreamer_async.config import Config, to_dict
from dreamer_async.device import cpu_threads
from dreamer_async.events import Checkpointed, Resumed
from dreamer_async.learner import Learner
from dreamer_async.run_dir import RunDir
from dreamer_async.schema import shown

SAVE_FAILURES = 3
"""Saves in a row that may fail before the run ends."""


class Saver:
    """Saves the run: captures in the learner thread, writes in a thread of its own."""

    def __init__(
        self, run_dir: RunDir, config: Config, learner: Learner, collector: Collector
    ) -> None:
        self._run_dir = run_dir
        self._config = config
        self._learner = learner
        self._collector = collector
        self._failures = 0
        self._saved = time.monotonic()
        self._saved_at = (-1, -1)
        self._asked = asyncio.Event()

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
        began = self._saved = time.monotonic()
        counters = self.counters()
        tensors = await learner_thread.run(self._learner.state)
        counters |= {"updates": self._learner.updates, "skipped": self._learner.skipped}
        tensors |= self._lockstep_state()
        try:
            path = await writer_thread.run(self._write, tensors, counters)
        except OSError as error:
            self._failed(error)
        else:
            self._failures = 0
            self._saved_at = counters["env_steps"], counters["updates"]
            self._announce(path, counters, time.monotonic() - began)

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
        self._collector.telemetry.warn(f"checkpoint not saved: {error}", "error")
        if self._failures >= SAVE_FAILURES:
            raise error

    def _announce(self, path: Path, counters: dict[str, Any], seconds: float) -> None:
        """Say what is in the checkpoint; the learner may have gone on while it was written."""
        size = (path / checkpoint.STATE).stat().st_size
        relative = str(path.relative_to(self._run_dir.path))
        self._collector.telemetry.emit(
            Checkpointed(relative, counters["env_steps"], counters["updates"], size, seconds)
        )


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
        lost = _restore_counters(collector, counters, found.manifest["replay"])
        if config.train.sync and lost == 0 and "policy/generator" in found.tensors:
            _restore_lockstep(collector, found.tensors)
    except (KeyError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error
    relative = str(found.path.relative_to(run_dir.path))
    inserted = collector.ratio.inserted
    resumed = Resumed(relative, inserted, learner.updates, lost, tuple(skipped))
    return resumed, _differences(config, counters)


def find(run_dir: RunDir) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """Return what `checkpoint.newest` does; raises CheckpointError if there are none but bad ones.

    A run that was killed before its first checkpoint has none at all, and may go on.
    """
    found, skipped = checkpoint.newest(run_dir.checkpoints)
    if found is None and skipped:
        raise checkpoint.CheckpointError("no valid checkpoint: " + "; ".join(skipped))
    return found, skipped


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
    if replay.windows >= collector.prefill:
        ratio.start()
    return Resumed("", ratio.inserted, 0, replay.steps * ratio.ratio / ratio.cost)


def _restore_counters(collector: Collector, counters: checkpoint.Counters, state: Any) -> float:
    """Restore replay cursors and limiter; return the updates that are forgiven.

    Those are what the steps that only the ring knows had paid for, and a debt larger than any
    that this run can get into (the batch was larger, or somebody wrote it there).
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
    return (fresh * ratio.ratio + forgiven) / ratio.cost


def _restore_lockstep(collector: Collector, tensors: dict[str, Tensor]) -> None:
    own = collector.actor.state() | collector.state()
    check_state(own, {n: t for n, t in tensors.items() if n.startswith(("policy/", "episodes/"))})
    _check_generator(tensors, "policy/generator")
    snapshot = checkpoint.under(tensors, "env/")
    collector.env.restore({name: tensor.numpy() for name, tensor in snapshot.items()})
    collector.actor.load_state(tensors)
    collector.load_state(tensors)
    collector.running = True
