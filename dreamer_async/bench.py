"""`dreamer-async bench`: how fast each part of a run is here, alone and without the others.

Together the rates say what a run can reach and which part holds it back: overlapped, the slowest
one sets the pace.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import envs
from dreamer_async.agent.policy import Policy
from dreamer_async.collector import Actor, append
from dreamer_async.config import Config
from dreamer_async.device import choose_device, choose_precision, cpu_threads
from dreamer_async.learner import Learner
from dreamer_async.pipeline import make_env
from dreamer_async.replay import Replay
from dreamer_async.replay_setup import ring_spec
from envs.spec import ActionSpec, StepBatch
from envs.vector import VectorEnv

FILL = 64
"""Steps per environment that the measured replay holds beyond one window."""


def bench(config: Config, seconds: float) -> dict[str, Any]:
    """Measure each part for about `seconds` and return rates per second by name.

    env: random actions; policy: rows acted on; updates: as in training, from the replay on.
    bound: agent steps that the slowest part allows at the config's train ratio.
    """
    device = choose_device(config.train.device)
    precision = choose_precision(config.train.precision, device)
    torch.set_num_threads(1)  # the policy's thread, as in training
    spec = envs.spec(config.env.suite, config.env.task)
    window = config.train.batch_length + 1
    ring = ring_spec(config, spec, config.env.num_envs * (window + FILL))
    with TemporaryDirectory(prefix="dreamer-async-") as folder, make_env(config) as env:
        paths = Path(folder) / "ring", Path(folder) / "latents"
        with Replay.create(*paths, ring, seed=config.train.seed) as replay:
            env.start()
            steps = env_rate(env, seconds)
            actor = Actor(Policy(spec, config, device, precision), env.num_envs, seed=0)
            fill(env, actor, replay, window + FILL)
            rows = env.recv()
            acts = rate(lambda: actor.act(rows), device, seconds) * len(rows.env_id)
            torch.set_num_threads(cpu_threads(config.train.threads))
            learner = Learner(spec, config, replay, device, precision)
            compiling = warm_up(learner, config.train.compile)
            updates = rate(learner.step, device, seconds)
            busy = learner.stages.totals()
    cost = config.train.batch_size * config.train.batch_length
    return {
        "task": f"{config.env.suite}/{config.env.task}",
        "size": config.size,
        "device": str(device),
        "precision": precision,
        "env_steps": steps,
        "policy_rows": acts,
        "updates": updates,
        "bound": min(steps, acts, updates * cost / config.train.train_ratio),
        "compile_seconds": compiling,
        "update_shares": {name: s / sum(busy.values()) for name, s in busy.items()},
    }


def env_rate(env: VectorEnv, seconds: float) -> float:
    """Steps per second of all environments with random actions."""
    rng = np.random.default_rng(0)
    rows, began, steps = env.recv(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        env.send(random_action(env.spec.action, len(rows.env_id), rng), rows.env_id)
        rows = env.recv()
        steps += len(rows.env_id)
    elapsed = time.perf_counter() - began
    env.send(random_action(env.spec.action, len(rows.env_id), rng), rows.env_id)
    return steps / elapsed


def random_action(spec: ActionSpec, rows: int, rng: np.random.Generator) -> NDArray[np.generic]:
    """Uniform actions, one per row."""
    if spec.kind == "discrete":
        return rng.integers(spec.size, size=rows, dtype=np.int32)
    return rng.uniform(-1, 1, (rows, spec.size)).astype(np.float32)


def fill(env: VectorEnv, actor: Actor, replay: Replay, steps: int) -> None:
    """Collect until every environment has added this many steps."""
    added = np.zeros(env.num_envs, np.int64)
    while added.min() < steps:
        step: StepBatch = env.recv()
        acted = actor.act(step)
        env.send(acted.action, step.env_id)
        append(replay, step, acted)
        added[step.env_id] += 1


def warm_up(learner: Learner, compiled: bool) -> float:
    """Compile if asked, do a first update, and return the seconds that it took."""
    began = time.perf_counter()
    if compiled:
        learner.warm_up()
    learner.step()
    return time.perf_counter() - began


def rate(action: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls per second, the device's queue included."""
    calls, began = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - began < seconds:
        action()
        calls += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return calls / (time.perf_counter() - began)
