"""`dreamer-async plan`: what a run would need, before anything of it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dreamer_async import envs
from dreamer_async.agent.actor_critic import Agent
from dreamer_async.bench.apart import BenchError, results_apart
from dreamer_async.bench.vram import estimate
from dreamer_async.config import Config
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.machine.device import choose_device, choose_precision
from dreamer_async.replay.setup import bytes_per_step, prefill_steps, ring_spec, steps_to_keep
from dreamer_async.run.checkpoint_room import checkpoint_bytes
from dreamer_async.store.directory import existing

SECONDS = 3.0
"""How long each speed is measured."""
PATIENCE_S = 120.0
"""After this long a measurement is given up."""
COMPILING_S = 420.0
"""As long on a GPU, where updates are compiled first: 208 s on two processors."""
NOT_MEASURED: dict[str, Any] = dict.fromkeys(("update_s", "update_how", "peak_gb", "held_gb"))
"""What is said of an update where it was not measured."""


def plan(config: Config, directory: Path, *, speeds: bool) -> dict[str, Any]:
    """Say what a run takes: JSON.

    With `speeds` a few updates and steps are measured, each in a process that is gone afterwards;
    where that takes too long or fails, the hours are null. On a GPU updates are measured as a run
    does them, compiled and recorded: launched one by one they would take several times as long.
    `held_gb` is what PyTorch keeps reserved on the GPU; on a CPU `vram_gb` is what a GPU would
    hold, from a table, null where that has no such agent.
    """
    spec = envs.spec_of(config.env)
    device = choose_device(config.train.device)
    directory = existing(directory)
    ring = ring_spec(config, spec, steps_to_keep(config, spec, directory))
    kept = ring.capacity * ring.num_envs
    train = config.train
    after = max(0, train.steps - prefill_steps(config))  # the first update comes with the prefill
    updates = after * train.train_ratio / (train.batch_size * train.batch_length)
    needed = {
        "task": f"{config.env.suite}/{config.env.task}",
        "size": config.size,
        "device": str(device),
        "precision": choose_precision(train.precision, device, native=train.wants_native),
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
    gpu = device.type == "cuda"
    update = _update(config, COMPILING_S if gpu else PATIENCE_S) if speeds else NOT_MEASURED
    step = _measure(config, "env", PATIENCE_S) if speeds else None
    step_s = step[0]["median_s"] if step else None
    return (
        needed
        | update
        | _vram(config, spec, gpu=gpu)
        | {
            "step_s": step_s,
            "learner_hours": _hours(updates, update["update_s"]),
            "env_hours": _hours(train.steps, step_s),
        }
    )


def parameters(spec: EnvSpec, config: Config) -> int:
    """Count the trainable parameters without making them."""
    with torch.device("meta"):
        agent = Agent(spec, config.model, config.loss)
    return sum(p.numel() for p in agent.parameters() if p.requires_grad)


def _update(config: Config, patience: float) -> dict[str, Any]:
    """How long an update takes, as what, and the memory for it."""
    rows = _measure(config, "learner", patience)
    if not rows:
        return NOT_MEASURED
    whole = rows[0]
    return {
        "update_s": whole["median_s"],
        "update_how": whole["what"].rpartition(", ")[2],
        "peak_gb": whole["detail"]["peak_gb"],
        "held_gb": whole["detail"].get("held_gb"),
    }


def _hours(count: float, seconds: float | None) -> float | None:
    return None if seconds is None else count * seconds / 3600


def _vram(config: Config, spec: EnvSpec, *, gpu: bool) -> dict[str, Any]:
    """What a GPU would hold, where there is none to ask."""
    if gpu:
        return {"vram_gb": None, "vram_compiled": None}
    row = estimate(config, spec)
    return {"vram_gb": row and row.held_gb, "vram_compiled": row and row.compiled}


def _measure(config: Config, part: str, patience: float) -> list[dict[str, Any]] | None:
    try:
        return results_apart(config, part, SECONDS, patience)
    except BenchError:
        return None
