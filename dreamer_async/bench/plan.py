"""`dreamer-async plan`: what a run would need, before anything of it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import envs
from dreamer_async.agent.actor_critic import Agent
from dreamer_async.bench.apart import BenchError, measure_apart
from dreamer_async.checkpoint_room import checkpoint_bytes
from dreamer_async.config import Config, override
from dreamer_async.device import choose_device, choose_precision
from dreamer_async.replay_setup import bytes_per_step, ring_spec, steps_to_keep
from envs.spec import EnvSpec

SECONDS = 3.0
"""How long each speed is measured."""
PATIENCE_S = 120.0
"""After this long a measurement is given up."""


def plan(config: Config, directory: Path, *, speeds: bool) -> dict[str, Any]:
    """Say what a run takes: JSON.

    With `speeds` a few eager updates and steps are measured, each in a process that is gone
    afterwards; where that takes too long or fails, the hours are null.
    """
    spec = envs.spec(config.env.suite, config.env.task)
    device = choose_device(config.train.device)
    while not directory.exists():
        directory = directory.parent
    ring = ring_spec(config, spec, steps_to_keep(config, spec, directory))
    kept = ring.capacity * ring.num_envs
    train = config.train
    updates = train.steps * train.train_ratio / (train.batch_size * train.batch_length)
    needed = {
        "task": f"{config.env.suite}/{config.env.task}",
        "size": config.size,
        "device": str(device),
        "precision": choose_precision(train.precision, device, native=train.native),
        "parameters": parameters(spec, config),
        "steps": train.steps,
        "frames": train.steps * spec.frames_per_step,
        "train_ratio": train.train_ratio,
        "updates": int(updates),
        "replay_steps": kept,
        "checkpoint_gb": checkpoint_bytes(config) / 1e9,
        "checkpoints": train.keep_checkpoints + 1,
        "replay_gb": kept * bytes_per_step(config, spec) / 1e9,
    }
    eager = override(config, ["train.compile=false"])
    update = _measure(eager, "learner") if speeds else None
    step = _measure(config, "env") if speeds else None
    return needed | {
        "peak_gb": update and update["detail"]["peak_gb"],
        "update_s": update and update["median_s"],
        "step_s": step and step["median_s"],
        "learner_hours": update and updates * update["median_s"] / 3600,
        "env_hours": step and train.steps * step["median_s"] / 3600,
    }


def parameters(spec: EnvSpec, config: Config) -> int:
    """Count the trainable parameters without making them."""
    with torch.device("meta"):
        agent = Agent(spec, config.model, config.loss)
    return sum(p.numel() for p in agent.parameters() if p.requires_grad)


def _measure(config: Config, part: str) -> dict[str, Any] | None:
    try:
        return measure_apart(config, part, SECONDS, PATIENCE_S)
    except BenchError:
        return None
