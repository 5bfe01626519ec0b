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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer_async import checkpoint
from dreamer_async.aio import OwnedThread
from dreamer_async.collector import Collector
from dreamer_async.config import Config, to_dict
from dreamer_async.device import cpu_threads
from dreamer_async.events import Checkpointed, Resumed
from dreamer_async.learner import Learner
from dreamer_async.run_dir import RunDir

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
        """Save now and then, and when asked, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), seconds)
            self._asked.clear()
            await self.save(learner_thread, writer_thread)

    async def save_if_due(
        self, seconds: float, learner_thread: OwnedThread, writer_thread: OwnedThread
    ) -> None:
        """Save when asked or when the last save is this long ago; for the lockstep loop."""
        if self._asked.is_set() or time.monotonic() - self._saved >= seconds:
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
            self._announce(path, time.monotonic() - began)

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
            "threads": cpu_threads(self._config.train.threads),
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

    def _announce(self, path: Path, seconds: float) -> None:
        ratio = self._collector.ratio
        size = (path / checkpoint.STATE).stat().st_size
        relative = str(path.relative_to(self._run_dir.path))
        self._collector.telemetry.emit(
            Checkpointed(relative, ratio.inserted, self._learner.updates, size, seconds)
        )


def restore(
    run_dir: RunDir, config: Config, learner: Learner, collector: Collector
) -> tuple[Resumed, list[str]]:
    """Bring back the newest checkpoint that verifies and what the ring holds.

    Also returns warnings: what keeps a lockstep run from going on bit for bit. Raises
    CheckpointError when checkpoints exist and none verifies; nothing is deleted then.
    """
    found, skipped = checkpoint.newest(run_dir.checkpoints)
    if found is None and skipped:
        raise checkpoint.CheckpointError("no valid checkpoint: " + "; ".join(skipped))
    if found is None:
        return _without_checkpoint(collector), []
    counters = found.manifest
    try:
        learner.load_state(found.tensors, counters)
    except (KeyError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{found.path.name}: {error}") from error
    fresh = _restore_counters(collector, counters)
    if config.train.sync and fresh == 0 and "policy/generator" in found.tensors:
        _restore_lockstep(collector, found.tensors)
    ratio = collector.ratio
    lost = fresh * ratio.ratio / ratio.cost
    relative = str(found.path.relative_to(run_dir.path))
    resumed = Resumed(relative, ratio.inserted, learner.updates, lost, tuple(skipped))
    return resumed, _differences(config, counters)


def _differences(config: Config, counters: dict[str, Any]) -> list[str]:
    """What makes the next updates differ from those of a run that had not been stopped."""
    now = {"torch": torch.__version__, "threads": cpu_threads(config.train.threads)}
    return [
        f"saved with {name} {counters.get(name)}, goes on with {value}: the last digits will differ"
        for name, value in now.items()
        if config.train.sync and counters.get(name) != value
    ]


def _without_checkpoint(collector: Collector) -> Resumed:
    """A run that was killed before its first checkpoint keeps its replay and starts anew."""
    ratio, replay = collector.ratio, collector.replay
    ratio.inserted = replay.steps
    if replay.windows >= collector.prefill:
        ratio.start()
    return Resumed("", ratio.inserted, 0, replay.steps * ratio.ratio / ratio.cost)


def _restore_counters(collector: Collector, counters: dict[str, Any]) -> int:
    """Restore replay cursors and limiter; return the steps that only the ring knows."""
    ratio, replay = collector.ratio, collector.replay
    same_ring = replay.load_state(counters["replay"])
    fresh = replay.steps - (int(counters["replay_steps"]) if same_ring else 0)
    ratio.inserted = int(counters["env_steps"]) + fresh
    if counters["ratio_started"] and replay.windows >= collector.prefill:
        ratio.start(float(counters["ratio_debt"]))
    elif replay.windows >= collector.prefill:
        ratio.start()
    return fresh


def _restore_lockstep(collector: Collector, tensors: dict[str, Tensor]) -> None:
    snapshot = checkpoint.under(tensors, "env/")
    collector.env.restore({name: tensor.numpy() for name, tensor in snapshot.items()})
    collector.actor.load_state(tensors)
    collector.load_state(tensors)
    collector.running = True
