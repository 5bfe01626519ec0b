"""How fast environments step with random actions, and what the adapter costs on top."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from dreamer_async.bench.timing import LEAST, Timing, timing
from dreamer_async.config import Config
from dreamer_async.envs.processes import ProcessEnv
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.worker import load
from dreamer_async.run.parts import make_env

ROUNDS = 40
"""Batches that are timed together: one alone is shorter than the machine's noise."""
SETTLE = 2
"""Batches before that: half of the environments make one batch."""

ADAPTER, RAW, ASYNC = "adapter", "raw envpool", "AsyncVectorEnv"
"""What is measured in turn."""


class Round(NamedTuple):
    """One way to step."""

    play: Callable[[], object]
    """Receive one batch and send random actions."""
    rows: int
    """Steps in one batch."""


class Spent(NamedTuple):
    """Seconds per step of some rounds."""

    wall: float
    cpu: float
    """Processor time of this process with all its threads, but not of worker processes."""


def environment(config: Config, seconds: float) -> list[Timing]:
    """Time agent steps through the adapter, in turn with what it stands on or stands in for.

    That is a raw pool for envpool, and gymnasium's AsyncVectorEnv for worker processes.
    """
    with ExitStack() as stack:
        own = stack.enter_context(make_env(config))
        own.start()
        kinds = {ADAPTER: adapter_round(own)}
        if isinstance(own, ProcessEnv):
            kinds[ASYNC] = async_round(own, stack)
        elif hasattr(own, "pool"):
            other: Any = stack.enter_context(make_env(config))
            other.start()
            kinds[RAW] = raw_round(other, other.pool)
        spent = in_turn(kinds, seconds)
    details = {ADAPTER: _shares(spent)}
    return [
        timing(
            "env",
            f"{own.spec.task}, {name}",
            "s/step",
            [t.wall for t in times],
            **details.get(name, {}),
        )
        for name, times in spent.items()
    ]


def _shares(spent: dict[str, list[Spent]]) -> dict[str, float]:
    """Speed of the adapter as a share of the other's, the median over pairs."""
    own = spent[ADAPTER]
    if RAW in spent:
        pairs = list(zip(spent[RAW], own, strict=True))
        wall, cpu = (median(raw[i] / ours[i] for raw, ours in pairs) for i in range(2))
        return {"share_of_raw": wall, "share_of_raw_by_processor_time": cpu}
    if ASYNC in spent:
        pairs = zip(spent[ASYNC], own, strict=True)
        return {
            "share_of_AsyncVectorEnv": median(theirs.wall / ours.wall for theirs, ours in pairs)
        }
    return {}


def in_turn(kinds: dict[str, Round], seconds: float) -> dict[str, list[Spent]]:
    """Seconds per step of each kind, measured alternately so that all see the same machine."""
    spent: dict[str, list[Spent]] = {name: [] for name in kinds}
    end = time.perf_counter() + seconds
    while len(spent[next(iter(kinds))]) < LEAST or time.perf_counter() < end:
        for name, (play, rows) in kinds.items():
            for _ in range(SETTLE):  # what was ready while the others ran is not counted
                play()
            began, used = time.perf_counter(), time.process_time()
            for _ in range(ROUNDS):
                play()
            steps = ROUNDS * rows
            cpu = (time.process_time() - used) / steps
            spent[name].append(Spent((time.perf_counter() - began) / steps, cpu))
    return spent


def adapter_round(env: VectorEnv) -> Round:
    rng = np.random.default_rng(0)

    def play() -> None:
        rows = env.recv()
        env.send(env.spec.action.sample(len(rows.env_id), rng), rows.env_id)

    return Round(play, env.batch_size)


def raw_round(env: VectorEnv, pool: Any) -> Round:
    """The same with envpool itself, in the types that it takes."""
    rng, dtype = np.random.default_rng(0), pool.spec.action_array_spec["action"].dtype

    def play() -> None:
        env_id = pool.recv()[-1]["env_id"]
        action = env.spec.action.sample(len(env_id), rng)
        pool.send(action.astype(dtype, copy=False), env_id)

    return Round(play, env.batch_size)


def async_round(env: ProcessEnv, stack: ExitStack) -> Round:
    """The same environments under gymnasium's AsyncVectorEnv, which steps all of them together."""
    import gymnasium

    source, count = env.source, env.num_envs
    builders = [partial(_gymnasium_env, source.target, dict(source.kwargs)) for _ in range(count)]
    vector = gymnasium.vector.AsyncVectorEnv(builders, context="spawn")
    stack.callback(vector.close, terminate=True)
    vector.reset(seed=list(range(count)))
    vector.action_space.seed(0)
    return Round(lambda: vector.step(vector.action_space.sample()), count)


def _gymnasium_env(target: str, kwargs: dict[str, Any]) -> Any:
    """Build an environment that AsyncVectorEnv takes, inside one of its workers."""
    import gymnasium

    class Plain(gymnasium.Env[Any, Any]):
        """What our workers build, with the base class that gymnasium insists on."""

        def __init__(self) -> None:
            self.inner = load(target)(**kwargs)
            self.observation_space = self.inner.observation_space
            self.action_space = self.inner.action_space

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return self.inner.reset(seed=seed)[0], {}

        def step(self, action: Any) -> Any:
            return *self.inner.step(action)[:4], {}

        def close(self) -> None:
            self.inner.close()

    return Plain()
