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
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.agent.policy import Policy, PolicyCarry
from dreamer_async.config import Config, ConfigError, EnvConfig
from dreamer_async.config.arguments import checked
from dreamer_async.envs.spec import EnvSpec, StepBatch
from dreamer_async.envs.vector import EnvError
from dreamer_async.fast.place import Place
from dreamer_async.machine.device_errors import is_out_of_memory
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.saved_agent import load
from dreamer_async.run.telemetry import EpisodeTracker, Telemetry
from dreamer_async.run.weights import PolicyWeights
from dreamer_async.store.events import Controlled, Episode, Evaluated

MAX_ENVS = 8
MAX_EPISODES = 100
"""Most episodes of one evaluation inside a trainer."""
LONGEST = 100_000
"""Agent steps after which an episode is cut off: nobody waits for one that never ends."""
NEWS_SECONDS = 10.0
"""Between two words about how far an evaluation is."""

Say = Callable[[str], object]


class Halted(Exception):
    """The evaluation was asked to end early."""


class Spectator(Protocol):
    """Whoever looks on while episodes are played."""

    def watch(self, pool: envs.VectorEnv, step: StepBatch, carry: PolicyCarry) -> None:
        """See rows of all environments, and what the policy remembers after them.

        The environments have not been sent their next action yet.
        """
        ...


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
    cut: int
    """Episodes that did not end within `longest` steps and counted as far as they went."""
    longest: int
    """Agent steps after which an episode is cut off."""

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
        numbers = "cut longest mean median std min max scores lengths"
        return {name: getattr(self, name) for name in f"{names} {numbers}".split()}


@checked
def evaluate(
    run: str | Path = "last",
    episodes: int = 10,
    seed: int = 0,
    *,
    device: str = "auto",
    best: bool = False,
    task: str | None = None,
    runs_dir: str | Path | None = None,
    longest: int = LONGEST,
    say: Say = lambda text: None,
    spectator: Spectator | None = None,
) -> Evaluation:
    """Play this many full episodes with the newest valid checkpoint of a run, or with the best.

    `run`, `device`, `best`, `task` and `runs_dir` are those of `load`; the code that
    `task` names is imported. The environments are as in training, several in parallel, and actions
    are sampled as in the official code. The same seed gives the same scores on one machine if the
    environments allow it. Episodes of `longest` agent steps (100,000 unless given) are cut off and
    their environments are not used again, so there may be fewer episodes than asked for. `say`, a
    function of a text, gets lines of progress, and a `spectator` sees every step.

    Raises ValueError for a run or task that cannot be found or built, or that has other spaces
    than the run was trained in, `CheckpointError` where nothing valid is saved, and `EnvError`
    where the environment fails.
    """
    for name, number in (("episodes", episodes), ("longest", longest)):
        if number < 1:
            raise ValueError(f"{name} is {number}, but must be at least 1")
    agent = load(run, device, seed, best=best, task=task, runs_dir=runs_dir)
    tally = Scores(episodes, longest)
    policy, generator, env = agent.policy, agent.generator, agent.config.env
    play(policy, generator, env, tally, seed, say=say, spectator=spectator)
    return Evaluation(
        run=agent.path.parent.parent.name,
        task=f"{agent.spec.suite}/{agent.spec.task}",
        checkpoint=agent.path.name,
        skipped=agent.skipped,
        env_steps=agent.env_steps,
        frames_per_step=agent.spec.frames_per_step,
        updates=agent.updates,
        seed=seed,
        scores=tuple(tally.scores),
        lengths=tuple(tally.lengths),
        cut=tally.cut,
        longest=longest,
    )


class Scores:
    """Scores of the episodes that count: the same number in each environment up to rounding.

    Taking whatever ends first would favour short episodes.
    """

    def __init__(self, episodes: int, longest: int = LONGEST) -> None:
        self._left = shares(episodes)
        self.num_envs = len(self._left)
        self.scores: list[float] = []
        self.lengths: list[int] = []
        """Agent steps of each episode."""
        self.cut = 0
        """Episodes that were cut off."""
        self.steps = 0
        self._longest = longest
        self._tracker = EpisodeTracker(self.num_envs)

    @property
    def complete(self) -> bool:
        """Whether no episode is waited for."""
        return not self._left.any()

    def add(self, step: StepBatch) -> None:
        """Count the rows of one batch."""
        self.steps += len(step.env_id)
        for episode in self._tracker.update(step, 0):
            if self._left[episode.env_id]:
                self._left[episode.env_id] -= 1
                self._count(episode)
        for episode in self._tracker.running(step):
            if self._left[episode.env_id] and episode.length >= self._longest:
                self._left[episode.env_id] = 0
                self.cut += 1
                self._count(episode)

    def _count(self, episode: Episode) -> None:
        self.scores.append(float(episode.score or 0.0))
        self.lengths.append(episode.length)

    def __str__(self) -> str:
        more = f", {int(self._left.sum())} to come" * (not self.complete)
        return f"{len(self.scores)} episodes in {self.steps:,} steps{more}"


def play(
    policy: Policy,
    generator: torch.Generator,
    env: EnvConfig,
    tally: Scores,
    seed: int,
    *,
    say: Say = lambda text: None,
    halted: Callable[[], bool] = lambda: False,
    spectator: Spectator | None = None,
) -> None:
    """Play in parallel environments until the scores are complete.

    Raises Halted once `halted` says so, and ConfigError, before anything is played, where the
    environment cannot be built or is not the one that the policy knows.
    """
    pool = _open(policy.spec, env, tally.num_envs, seed, drawn=spectator is not None)
    carry, told = policy.initial(tally.num_envs), time.monotonic()
    with pool:
        pool.start()
        while not tally.complete:
            if halted():
                raise Halted
            step = pool.recv()
            acted, carry = policy.act(step.obs, step.is_first, carry, generator)
            if spectator is not None:
                spectator.watch(pool, step, carry)
            pool.send(acted.action, step.env_id)
            tally.add(step)
            if time.monotonic() - told > NEWS_SECONDS:
                told = time.monotonic()
                say(str(tally))


def _open(
    spec: EnvSpec, env: EnvConfig, num_envs: int, seed: int, *, drawn: bool
) -> envs.VectorEnv:
    """Environments that look like `spec`; ConfigError if they do not any more."""
    try:
        pool = envs.make(
            env.suite,
            env.task,
            num_envs=num_envs,
            seed=seed,
            resize=env.resize,
            view=envs.View.of(env),
            drawn=drawn,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        check_same(spec, pool.spec)
    except ConfigError:
        pool.close()
        raise
    return pool


def check_same(before: EnvSpec, now: EnvSpec) -> None:
    """Raise ConfigError where an environment is not the one that an agent was trained in."""
    if changes := envs.changes(before, now):
        raise ConfigError(
            f"{now.suite}/{now.task} is not as the agent was trained in it: {'; '.join(changes)}"
        )


def shares(episodes: int) -> NDArray[np.int64]:
    """How many episodes each of up to MAX_ENVS environments plays."""
    num_envs = min(episodes, MAX_ENVS)
    return episodes // num_envs + (np.arange(num_envs) < episodes % num_envs)


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
                await asyncio.wait([playing])
            except asyncio.CancelledError:
                self._halt.set()
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                raise
            finally:
                self._asked.clear()
            answer = playing.result()
            self._telemetry.emit(answer)
            if isinstance(answer, Evaluated):
                cut = sum(length >= LONGEST for length in answer.lengths)
                why = f"{cut} of its episodes cut off after {LONGEST:,} steps" if cut else ""
                self._telemetry.emit(Controlled("evaluate", "done", why))

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
            tally = Scores(self._episodes)
            play(policy, generator, env, tally, seed, halted=self._halt.is_set)
        except Exception as error:
            foreseen = isinstance(error, ConfigError | EnvError | OSError)
            if not foreseen and not is_out_of_memory(error):
                raise
            return Controlled("evaluate", "refused", str(error) or type(error).__name__)
        seconds = time.monotonic() - began
        scores, lengths = tuple(tally.scores), tuple(tally.lengths)
        return Evaluated(env_steps, max(0, update), scores, lengths, seconds)
