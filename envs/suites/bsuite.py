"""bsuite in worker processes: 23 experiments with 468 settings, seen as vectors.

A task is an experiment with a setting, such as catch/7; without a number it is the first. bsuite
counts from the first episode of an environment to its last: one environment, and no resuming, if
scores are to be the official ones. The three experiments on MNIST download it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from dreamer_async.envs import names, needs
from dreamer_async.envs.process_task import process_suite, restore_numpy_aliases

SETTINGS = {
    "bandit": 20,
    "bandit_noise": 20,
    "bandit_scale": 20,
    "cartpole": 20,
    "cartpole_noise": 20,
    "cartpole_scale": 20,
    "cartpole_swingup": 20,
    "catch": 20,
    "catch_noise": 20,
    "catch_scale": 20,
    "deep_sea": 21,
    "deep_sea_stochastic": 21,
    "discounting_chain": 20,
    "memory_len": 23,
    "memory_size": 17,
    "mnist": 20,
    "mnist_noise": 20,
    "mnist_scale": 20,
    "mountain_car": 20,
    "mountain_car_noise": 20,
    "mountain_car_scale": 20,
    "umbrella_distract": 23,
    "umbrella_length": 23,
}
"""Experiments and how many settings each has."""

TASKS = tuple(f"{name}/{setting}" for name, count in SETTINGS.items() for setting in range(count))
DOWNLOADED = tuple(task for task in TASKS if task.startswith("mnist"))
"""Those that need MNIST, which bsuite downloads when one is built for the first time."""
MNIST = (
    "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
    "t10k-labels-idx1-ubyte.gz into /tmp/mnist"
)
"""What helps where there is no network."""
LOGGED = ("steps", "episode", "total_return", "episode_len", "episode_return")
"""What bsuite's own Logging wrapper keeps besides an experiment's information."""


class BSuite:
    """A bsuite environment as gymnasium would have it; `info["log"]` holds a row of its results."""

    def __init__(self, task: str) -> None:
        import numpy as np
        from gymnasium import spaces

        restore_numpy_aliases("int")
        self._task = task
        self._env = self._load(None)
        size = int(np.prod(self._env.observation_spec().shape))
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = spaces.Discrete(self._env.action_spec().num_values)
        self._row: dict[str, float] = dict.fromkeys(LOGGED, 0.0)
        self.log_names = tuple(self._log())

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed begins the experiment, and determines it."""
        if seed is not None:
            self._env = self._load(seed)
            self._row = dict.fromkeys(LOGGED, 0.0)
        self._row |= {"episode_len": 0.0, "episode_return": 0.0}
        return self._obs(self._env.reset()), {"log": self._log()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time_step = self._env.step(int(action))
        reward = float(time_step.reward or 0.0)
        row = self._row
        for name, growth in zip(LOGGED, (1, time_step.last(), reward, 1, reward), strict=True):
            row[name] += growth
        terminal = bool(time_step.last() and time_step.discount == 0)
        cut = bool(time_step.last() and not terminal)
        return self._obs(time_step), reward, terminal, cut, {"log": self._log()}

    def _load(self, seed: int | None) -> Any:
        """Build the experiment; a seed that its setting fixes stays."""
        import numpy as np

        experiment = self._task.partition("/")[0]
        setting = dict(importlib.import_module("bsuite.sweep").SETTINGS[self._task])
        load = importlib.import_module("bsuite.bsuite").EXPERIMENT_NAME_TO_ENVIRONMENT[experiment]
        takes_seed = "seed" in inspect.signature(load).parameters
        if takes_seed and setting.get("seed") is None:
            setting["seed"] = seed
        try:
            env = load(**setting)
        except OSError as error:
            if self._task not in DOWNLOADED:
                raise
            raise OSError(f"no MNIST here, and downloading it failed: {error}; {MNIST}") from None
        if not takes_seed and hasattr(env, "_rng"):  # deep_sea_stochastic cannot be told one
            env._rng = np.random.RandomState(seed)
        return env

    def _log(self) -> dict[str, float]:
        own: Mapping[str, Any] = self._env.bsuite_info()
        return self._row | {name: float(value) for name, value in own.items()}

    def _obs(self, time_step: Any) -> Any:
        return time_step.observation.reshape(-1).astype("float32")

    def close(self) -> None:
        self._env.close()


def score(runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> list[dict[str, Any]]:
    """Score runs (task and logged rows of each) by bsuite's own analysis, experiment by experiment.

    `finished` says whether every setting given has as many episodes as the experiment asks for;
    the official score takes all of an experiment's settings.
    """
    restore_numpy_aliases("int")
    sweep = importlib.import_module("bsuite.sweep")
    analysis = importlib.import_module("bsuite.experiments.summary_analysis")
    rows = [
        {**sweep.SETTINGS[task], **row, "bsuite_id": task, "bsuite_env": task.partition("/")[0]}
        for task, log in runs
        for row in log
    ]
    scores = analysis.bsuite_score(importlib.import_module("pandas").DataFrame(rows))
    settings = {task.partition("/")[0]: set[str]() for task, _ in runs}
    for task, _ in runs:
        settings[task.partition("/")[0]].add(task)
    return [
        {
            "experiment": str(row["bsuite_env"]),
            "score": float(row["score"]),
            "finished": bool(row["finished"]),
            "settings": len(settings[row["bsuite_env"]]),
            "of": SETTINGS[row["bsuite_env"]],
        }
        for row in scores.to_dict("records")
    ]


SUITE = process_suite(
    "bsuite",
    "catch/0",
    TASKS,
    "dreamer_async.envs.suites.bsuite:BSuite",
    about="23 small experiments in 468 settings, each about one ability",
    needs=(needs.of_extra("bsuite", "bsuite"),),
    remarks=dict.fromkeys(DOWNLOADED, "downloads MNIST (12 MB)"),
    spellings={names.squash(name): f"{name}/0" for name in SETTINGS},
)
