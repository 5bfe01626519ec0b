"""Made-up experience: the right shapes and types for a task, without its environment."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import EnvSpec, ObsSpec, StepBatch
from dreamer_async.replay.replay import Replay
from dreamer_async.run.collector import stored_fields

EPISODE = 200
"""Mean length of a made-up episode in steps."""
DISTINCT = 16
"""Different steps per environment."""


def random_observation(spec: ObsSpec, rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Uniform pixels and classes, normal floats: [N, *shape]."""
    shape = (rows, *spec.shape)
    if spec.dtype == "float32":
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, spec.classes or 256, shape, spec.dtype)


def random_rows(spec: EnvSpec, rows: int, rng: np.random.Generator) -> StepBatch:
    """One row of each of environments 0 to N - 1."""
    last = rng.random(rows) < 1 / EPISODE
    return StepBatch(
        env_id=np.arange(rows, dtype=np.int32),
        obs={key: random_observation(obs, rows, rng) for key, obs in spec.obs.items()},
        reward=rng.standard_normal(rows, np.float32),
        is_first=rng.random(rows) < 1 / EPISODE,
        is_last=last,
        is_terminal=last,
    )


def adder(replay: Replay, spec: EnvSpec, seed: int = 0) -> Callable[[], None]:
    """Make a function that adds one made-up step to every environment.

    It goes round in a few different ones, since making them takes longer than adding them.
    """
    rng, ring = np.random.default_rng(seed), replay.spec
    rows = [random_rows(spec, ring.num_envs, rng) for _ in range(DISTINCT)]
    actions = [spec.action.sample(ring.num_envs, rng) for _ in rows]
    fields = [stored_fields(row, action) for row, action in zip(rows, actions, strict=True)]
    steps = itertools.cycle([(row.env_id, f) for row, f in zip(rows, fields, strict=True)])
    deter = rng.standard_normal((ring.num_envs, ring.deter)).astype(np.float16)
    stoch = np.zeros((ring.num_envs, ring.stoch), np.uint8)
    return lambda: replay.add(*next(steps), deter, stoch)
