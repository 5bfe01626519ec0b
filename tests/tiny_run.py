"""A run that trains in seconds: a toy task and the smallest model."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer_async.config import from_dict, override, resolve, to_dict
from dreamer_async.store import checkpoint, events
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir

TINY = (
    "model.deter=32",
    "model.hidden=8",
    "model.units=8",
    "model.stoch=4",
    "model.classes=4",
    "model.depth=2",
    "model.blocks=4",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.actor_layers=1",
    "model.critic_layers=1",
    "loss.imagine_length=3",
    "train.batch_size=4",
    "train.batch_length=8",
    "train.train_ratio=8",
    "train.compile=false",
    "train.threads=1",
    "train.metrics_seconds=0.001",
    "env.num_envs=4",
    "replay.capacity=1000",
)
AS_OPTIONS = [word for setting in TINY for word in ("-s", setting)]
"""The same as words of a command line."""
COST = 4 * 8
"""Steps of a batch."""
UPDATES_PER_STEP = 8 / COST
"""The train ratio over the steps of a batch."""

STARTED = events.RunStarted(
    run="r", suite="atari", task="pong", size="tiny", parameters=1, device="cpu",
    precision="float32", num_envs=2, steps=100, frames_per_step=4, train_ratio=32.0,
    seed=0, sync=False, compiled=False, replay_capacity=1, replay_bytes=1, pid=1, version="0",
)  # fmt: skip
"""How a run of another suite begins, whose agent steps are four frames."""


def make_run(root: Path, *overrides: str, task: str = "catch") -> RunDir:
    config = resolve("toy", task, size="tiny", overrides=(*TINY, *overrides))
    return RunDir.create(root, f"toy-{task}", config=to_dict(config))


def extend(run: RunDir, *overrides: str) -> None:
    """Change settings of a run, as `resume` does."""
    config = from_dict(read_json(run.config_path))
    write_json_atomic(run.config_path, to_dict(override(config, overrides)))


def read(run: RunDir) -> list[events.Event]:
    records, _ = events.read_events(run.events_path)
    return [record.event for record in records]


def newest(run: RunDir) -> checkpoint.Checkpoint:
    found, skipped = checkpoint.newest(run.checkpoints)
    assert found is not None, skipped
    return found


def lacking_updates(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Updates that a run made too few from one manifest to a later one, by steps and debts."""
    steps, updates, debt = (
        second[name] - first[name] for name in ("env_steps", "updates", "ratio_debt")
    )
    return UPDATES_PER_STEP * steps - updates - debt / COST


def kill_trainers(root: Path) -> None:
    """Kill what a test has left training below a folder: it would take a core from the others."""
    for lock in root.rglob("lock"):
        if (owner := RunDir(lock.parent).owner()) is not None:
            os.kill(owner["pid"], signal.SIGKILL)
