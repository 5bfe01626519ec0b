"""Crafter in worker processes: 64x64 RGB, 17 actions, 22 achievements, 10,000 steps at most.

Death is terminal, the time limit is not. `summarize` is the benchmark's own score. Generating a
world takes 1.3 s without numba and 0.14 s with it, so the extra brings numba.

The package keeps creatures in sets and picks one by its place there, which is where it lies in
memory: one seed gives different episodes. Here they are kept in the order of their arrival.
"""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dreamer_async.envs import needs
from dreamer_async.envs.process_task import process_suite

SCORED_STEPS = 1_000_000
"""Of a run; its score is that of the episodes that end within them."""
ACHIEVEMENT = "achievement/"
"""In front of the name of an achievement among the values to log."""


class OrderedSet(dict[Any, None]):
    """As much of a set as Crafter uses, iterated in the order of additions."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


def keep_order(world: Any) -> None:
    """Make a Crafter world remember creatures in order, in this and all later episodes."""
    reset = world.reset

    def reset_in_order(seed: int | None = None) -> None:
        reset(seed=seed)
        assert not world._chunks, "creatures before the world was reset"
        world._chunks = defaultdict(OrderedSet)

    world.reset = reset_in_order


class Crafter:
    """crafter.Env as gymnasium would have it; achievements are logged as counts so far."""

    def __init__(self, task: str) -> None:
        import numpy as np
        from gymnasium import spaces

        self._crafter: Any = importlib.import_module("crafter")
        self._rewarded = task == "reward"
        self._names: list[str] = list(self._crafter.constants.achievements)
        self.log_names = ("reward", *(ACHIEVEMENT + name for name in self._names))
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = spaces.Discrete(len(self._crafter.constants.actions))
        self._env: Any = None
        self._reward = 0.0

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed determines this one and all after it."""
        if self._env is None or seed is not None:
            self._env = self._crafter.Env(size=(64, 64), reward=self._rewarded, seed=seed)
            keep_order(self._env._world)
        self._reward = 0.0
        return self._env.reset(), {"log": dict.fromkeys(self.log_names, 0.0)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, done, info = self._env.step(int(action))
        self._reward += info["reward"]
        counts = {ACHIEVEMENT + name: float(info["achievements"][name]) for name in self._names}
        dead = info["discount"] == 0
        log = {"reward": self._reward, **counts}
        return obs, float(reward), dead, done and not dead, {"log": log}

    def close(self) -> None:
        """Nothing is open."""


def summarize(logs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Success rates in percent of episodes, and the score: exp(mean(ln(1 + rate))) - 1.

    Hafner 2021, "Benchmarking the Spectrum of Agent Capabilities", section 3.3: over all episodes
    of the first SCORED_STEPS.
    """
    names = [name for name in logs[0] if name.startswith(ACHIEVEMENT)] if logs else []
    if not names:
        return {}
    rates = {
        f"success/{name.removeprefix(ACHIEVEMENT)}": 100
        * sum(log[name] > 0 for log in logs)
        / len(logs)
        for name in names
    }
    mean = sum(math.log1p(rate) for rate in rates.values()) / len(rates)
    return {"score": math.expm1(mean), **rates}


SUITE = process_suite(
    "crafter",
    "reward",
    ("reward", "noreward"),
    "dreamer_async.envs.suites.crafter:Crafter",
    about="an open world with 22 achievements, 64x64",
    needs=(needs.of_extra("crafter", "crafter"),),
    summarize=summarize,
    scored_steps=SCORED_STEPS,
)
