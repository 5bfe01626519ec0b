"""Scores of an agent: full episodes on environments of their own.

A saved agent is scored by `evaluate`, the one in training by `Evaluator`, in a thread
of its own with its own environments, weights and random numbers: training does not notice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer_async import envs
from dreamer_async.agent.policy import Policy
from dreamer_async.config import Config, EnvConfig
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.vector import EnvError
from dreamer_async.fast.place import Place
from dreamer_async.machine.device_errors import is_out_of_memory
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.saved_agent import load
from dreamer_async.run.telemetry import EpisodeTracker, Telemetry
from dreamer_async.run.weights import PolicyWeights
from dreamer_async.store.events import Controlled, Evaluated

MAX_ENVS = 8
MAX_EPISODES = 100
"""Most episodes of one evaluation inside a trainer."""


class Halted(Exception):
    """The evaluation was asked to end early."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one checkpoint, and which one it was."""

    run: str
    """Name of the run."""
    task: str
    """Its suite and task, such as atari/pong."""
    checkpoint: str
    """Name of the checkpoint."""
    skipped: tuple[str, ...]
    """Checkpoints that would have come first and do not verify, each with its reason."""
    env_steps: int
    """Agent steps that the run had seen."""
    frames_per_step: int
    """Environment frames of one agent step (the action repeat)."""
    updates: int
    """Updates that it had made."""
    seed: int
    """Seed of environments, latents and actions."""
    scores: tuple[float, ...]
    """Sum of rewards of each episode."""
    lengths: tuple[int, ...]
    """Agent steps of each episode."""

    @property
    def frames(self) -> int:
        """Environment frames that the run had seen."""
        return self.env_steps * self.frames_per_step

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    @property
    def median(self) -> float:
        """Median score."""
        return float(np.median(self.scores))

    @property
    def std(self) -> float:
        """Standard deviation of the scores (of these episodes, not of a sample)."""
        return float(np.std(self.scores))

    @property
    def min(self) -> float:
        """Lowest score."""
        return float(np.min(self.scores))

    @property
    def max(self) -> float:
        """Highest score."""
        return float(np.max(self.scores))

    def record(self) -> dict[str, Any]:
        """All of it as JSON can carry it, as `eval --json` prints it."""
        names = "run task checkpoint skipped env_steps frames_per_step frames updates seed episodes"
        numbers = "mean median std min max scores lengths"
        return {name: getattr(self, name) for name in f"{names} {numbers}".split()}


def evaluate(
    run: str | Path = "last",
    episodes: int = 10,
    seed: int = 0,
    *,
    device: str = "auto",
    best: bool = False,
    task: str | None = None,
    runs_dir: str | Path | None = None,
) -> Evaluation:
    """Play this many full episodes with the newest valid checkpoint of a run, or with the best.

    `run`, `device`, `best`, `task` and `runs_dir` are those of `load`; what `task` names is
    imported where it is code. The environments are as in training, several in parallel, and as in
    the official code actions are sampled. The same seed gives the same scores on one machine where
    the environments allow it.

    Raises ValueError for a run or task that cannot be found or built, `CheckpointError` where
    nothing valid is saved, and `EnvError` where the environment fails.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, but 1 is the least")
    agent = load(run, device, seed, best=best, task=task, runs_dir=runs_dir)
    scores, lengths = play(agent.policy, agent.generator, agent.config.env, episodes, seed)
    return Evaluation(
        run=agent.path.parent.parent.name,
        task=f"{agent.spec.suite}/{agent.spec.task}",
        checkpoint=agent.path.name,
        skipped=agent.skipped,
        env_steps=agent.env_steps,
        frames_per_step=agent.spec.frames_per_step,
        updates=agent.updates,
        seed=seed,
        scores=tuple(scores),
        lengths=tuple(lengths),
    )


def play(
    policy: Policy,
    generator: torch.Generator,
    env: EnvConfig,
    episodes: int,
    seed: int,
    halted: Callable[[], bool] = lambda: False,
) -> tuple[list[float], list[int]]:
    """Play episodes in parallel environments, the same number in each up to rounding.

    Taking whatever ends first would favour short episodes. Raises Halted once `halted` says so.
    """
    num_envs = min(episodes, MAX_ENVS)
    quota = np.full(num_envs, episodes // num_envs)
    quota[: episodes % num_envs] += 1
    view = envs.View.of(env)
    pool = envs.make(
        env.suite, env.task, num_envs=num_envs, seed=seed, resize=env.resize, view=view
    )
    tracker, carry = EpisodeTracker(num_envs), policy.initial(num_envs)
    scores: list[float] = []
    lengths: list[int] = []
    with pool:
        pool.start()
        while quota.any():
            if halted():
                raise Halted
            step = pool.recv()
            acted, carry = policy.act(step.obs, step.is_first, carry, generator)
            pool.send(acted.action, step.env_id)
            for episode in tracker.update(step, 0):
                if quota[episode.env_id]:
                    quota[episode.env_id] -= 1
                    scores.append(float(episode.score or 0.0))
                    lengths.append(episode.length)
    return scores, lengths


class Evaluator:
    """Answers requests for an evaluation while the run trains."""

    def __init__(
        self,
        spec: EnvSpec,
        config: Config,
        place: Place,
        weights: PolicyWeights,
        telemetry: Telemetry,
    ) -> None:
        self._spec = spec
        self._config = config
        self._place = place
        self._weights = weights
        self._telemetry = telemetry
        self._asked = asyncio.Event()
        self._episodes = 0
        self._count = 0
        self._halt = threading.Event()

    def ask(self, episodes: object) -> str:
        """Ask `serve` to play; returns why not, or nothing."""
        if not isinstance(episodes, int) or not 1 <= episodes <= MAX_EPISODES:
            return f"episodes must be a whole number from 1 to {MAX_EPISODES}"
        if self._asked.is_set():
            return "an evaluation is running already"
        self._episodes = episodes
        self._asked.set()
        return ""

    async def serve(self, thread: OwnedThread) -> None:
        """Play when asked, until cancelled; a running evaluation then ends at its next step.

        One whose environments do not answer is left behind.
        """
        while True:
            await self._asked.wait()
            playing = asyncio.ensure_future(thread.run_or_leave(self._evaluate))
            try:
                answer = await asyncio.shield(playing)
            except asyncio.CancelledError:
                self._halt.set()
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                raise
            finally:
                self._asked.clear()
            self._telemetry.emit(answer)
            if isinstance(answer, Evaluated):
                self._telemetry.emit(Controlled("evaluate", "done"))

    def _evaluate(self) -> Evaluated | Controlled:
        """Play in the calling thread; trouble with the environments is an answer."""
        began = time.monotonic()
        seed = self._config.train.seed + 1000 + self._count
        self._count += 1
        try:
            place = self._place
            policy = Policy(self._spec, self._config, place.device, place.precision, place.backend)
            update = self._weights.fetch(policy.load)
            env_steps = self._telemetry.position.env_steps
            generator, env = torch.Generator().manual_seed(seed), self._config.env
            scores, lengths = play(policy, generator, env, self._episodes, seed, self._halt.is_set)
        except Exception as error:
            if not isinstance(error, EnvError | OSError) and not is_out_of_memory(error):
                raise
            return Controlled("evaluate", "refused", str(error) or type(error).__name__)
        seconds = time.monotonic() - began
        return Evaluated(env_steps, max(0, update), tuple(scores), tuple(lengths), seconds)
