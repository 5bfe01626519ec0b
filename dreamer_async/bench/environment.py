"""How fast environments step with random actions, and what the adapter costs on top."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from dreamer_async.bench.synthetic import random_action
from dreamer_async.bench.timing import LEAST, Timing, timing
from dreamer_async.config import Config
from dreamer_async.pipeline import make_env
from envs.vector import VectorEnv

ROUNDS = 40
"""Batches that are timed together: one alone is shorter than the machine's noise."""

ADAPTER, RAW = "adapter", "raw envpool"
"""What is measured in turn."""
Round = Callable[[], object]
"""Receive one batch and send random actions."""


def environment(config: Config, seconds: float) -> list[Timing]:
    """Time agent steps through the adapter, and for envpool in turn with a raw pool."""
    with ExitStack() as stack:
        own = stack.enter_context(make_env(config))
        own.start()
        kinds = {ADAPTER: adapter_round(own)}
        if hasattr(own, "pool"):
            other: Any = stack.enter_context(make_env(config))
            other.start()
            kinds[RAW] = raw_round(other, other.pool)
        times = in_turn(kinds, own.batch_size, seconds)
    details: dict[str, dict[str, float]] = {}
    if RAW in times:
        pairs = np.array(times[RAW]) / np.array(times[ADAPTER])
        details[ADAPTER] = {"share_of_raw": float(np.median(pairs))}
    return [
        timing("env", f"{own.spec.task}, {name}", "s/step", t, **details.get(name, {}))
        for name, t in times.items()
    ]


def in_turn(kinds: dict[str, Round], rows: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per step of each kind, measured alternately so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    end = time.perf_counter() + seconds
    while len(times[next(iter(kinds))]) < LEAST or time.perf_counter() < end:
        for name, play in kinds.items():
            play()  # what the others left waiting is not counted
            began = time.perf_counter()
            for _ in range(ROUNDS):
                play()
            times[name].append((time.perf_counter() - began) / (ROUNDS * rows))
    return times


def adapter_round(env: VectorEnv) -> Round:
    rng = np.random.default_rng(0)

    def play() -> None:
        rows = env.recv()
        env.send(random_action(env.spec.action, len(rows.env_id), rng), rows.env_id)

    return play


def raw_round(env: VectorEnv, pool: Any) -> Round:
    """The same with envpool itself, in the types that it takes."""
    rng, dtype = np.random.default_rng(0), pool.spec.action_array_spec["action"].dtype

    def play() -> None:
        env_id = pool.recv()[-1]["env_id"]
        action = random_action(env.spec.action, len(env_id), rng)
        pool.send(action.astype(dtype, copy=False), env_id)

    return play
