"""Memory Maze in worker processes: 64x64 RGB mazes whose objects must be remembered.

Episodes last 1000 to 4000 steps and only end by their time limit. The package draws with MuJoCo
through EGL, works with mujoco before 4, and imports the old gym.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from dreamer_async.envs import needs
from dreamer_async.envs.process_task import first_seed, process_suite

TASKS = ("9x9", "11x11", "13x13", "15x15")


class MemoryMaze:
    """A dm_env maze as gymnasium would have it."""

    def __init__(self, task: str) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        import numpy as np
        from gymnasium import spaces

        tasks = importlib.import_module("memory_maze.tasks")
        self._build = getattr(tasks, f"memory_maze_{task}")
        self._env: Any = None
        self._random = np.random.RandomState(0)
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = spaces.Discrete(6)

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a new maze; a seed determines this one and all after it."""
        if self._env is None or seed is not None:
            self.close()
            self._env = self._build(seed=first_seed(seed, self._random))
        return self._image(self._env.reset()), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time_step = self._env.step(int(action))
        terminal = bool(time_step.last() and time_step.discount == 0)
        cut = bool(time_step.last() and not terminal)
        return self._image(time_step), float(time_step.reward or 0.0), terminal, cut, {}

    def _image(self, time_step: Any) -> Any:
        obs = time_step.observation
        return obs["image"] if isinstance(obs, dict) else obs

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


SUITE = process_suite(
    "memory-maze",
    "9x9",
    TASKS,
    "dreamer_async.envs.suites.memory_maze:MemoryMaze",
    about="mazes whose objects must be remembered, 64x64, four sizes",
    needs=(needs.of_extra("memory_maze", "memory-maze"),),
)
