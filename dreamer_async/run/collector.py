"""The collector: environment rows in, actions out, everything into the replay ring.

    recv -> (room?) -> act -> send -> add -> count

`recv` runs in the env thread and acting in the policy thread, so that the loop never blocks
and one half of the environments steps while the other half is acted on. Where somebody waits for
each action, both run in the policy thread: on cores that the learner keeps busy every change of
threads may take some milliseconds. It takes newer weights before it waits for rows, and not between
the rows and the action.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamer_async.agent.policy import Acted, Policy, PolicyCarry, PolicyNoise
from dreamer_async.envs.findings import Inspection
from dreamer_async.envs.spec import StepBatch
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.fast.cuda.policy_graph import PolicyGraph
from dreamer_async.replay.replay import Replay
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.telemetry import EpisodeTracker, Stages, Telemetry
from dreamer_async.run.weights import PolicyWeights
from dreamer_async.scores.suites import SuiteScores
from dreamer_async.store.events import Episode

FRESH_SECONDS = 1.0
"""After that long, weights that were taken over ahead of rows are looked for once more."""
SCORED_EPISODES = 20
"""Episodes whose mean says how good a checkpoint is."""


class Player:
    """The policy with one recurrent carry per environment, kept by environment id."""

    def __init__(self, policy: Policy, num_envs: int, seed: int) -> None:
        self.policy = policy
        self.carry = policy.initial(num_envs)
        self.generator = torch.Generator().manual_seed(seed)
        self.version = -1
        """The update whose weights are in use."""
        on_gpu = policy.device.type == "cuda"
        self._graph = PolicyGraph(policy, self.carry) if on_gpu else None

    def refresh(self, weights: PolicyWeights) -> None:
        """Take over newer weights, if there are any."""
        if weights.version != self.version:
            self.version = weights.fetch(self.policy.load, have=self.version)

    def prepare(self, weights: PolicyWeights, rows: int) -> None:
        """Take over newer weights and act with them once, on zeros, which nobody learns of.

        What the next batch of so many rows would wait for is done then: with new weights the first
        step packs them, and takes three times as long.
        """
        had = self.version
        self.refresh(weights)
        if self.version == had or self._graph is not None:
            return
        obs = {n: np.zeros((rows, *of.shape), of.dtype) for n, of in self.policy.spec.obs.items()}
        first, chance = np.ones(rows, np.bool_), torch.Generator()
        self.policy.act(obs, first, self.policy.initial(rows), chance)

    def warm_up(self, rows: int) -> None:
        """Get ready for batches of so many rows, where that takes a while."""
        if self._graph is not None:
            self._graph.warm_up(rows)

    def act(self, step: StepBatch) -> Acted:
        """Choose an action for each row and keep the carries."""
        if step.executed is not None:  # that is what led here, whatever was chosen
            done = torch.from_numpy(step.executed).to(self.carry.action)
            self.carry.action[torch.from_numpy(step.env_id.astype(np.int64))] = done
        if self._graph is not None:
            action, stoch = self.policy.spec.action, self.policy.config.model.stoch
            noise = PolicyNoise.draw(action, stoch, len(step.env_id), self.generator)
            return self._graph.act(step.env_id, step.obs, step.is_first, noise)
        rows = torch.from_numpy(step.env_id.astype(np.int64))
        carry = PolicyCarry(*(part[rows] for part in self.carry))
        acted, carry = self.policy.act(step.obs, step.is_first, carry, self.generator)
        for part, new in zip(self.carry, carry, strict=True):
            part[rows] = new
        return acted

    def notices(self) -> list[str]:
        """What people should know that was not said before."""
        return [] if self._graph is None else self._graph.notices()

    def state(self) -> dict[str, Tensor]:
        """Everything that acting depends on besides the weights."""
        carry = {name: part.clone() for name, part in self.carry._asdict().items()}
        return carry | {"generator": self.generator.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state()` in place; the weights come from the learner."""
        for name, part in self.carry._asdict().items():
            part.copy_(state[name])
        self.generator.set_state(state["generator"])


def stored_fields(step: StepBatch, action: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the replay stores of rows and the actions that were chosen for them: {name: [N, *]}."""
    return {
        **step.obs,
        "action": action,
        "reward": step.reward,
        "is_first": step.is_first,
        "is_last": step.is_last,
        "is_terminal": step.is_terminal,
    }


def append(replay: Replay, step: StepBatch, acted: Acted) -> None:
    """Add rows with what was done about them to the replay."""
    replay.add(step.env_id, stored_fields(step, acted.action), acted.deter, acted.stoch)


class Collector:
    """Steps the environments and fills the replay."""

    def __init__(
        self,
        env: VectorEnv,
        player: Player,
        weights: PolicyWeights,
        replay: Replay,
        ratio: TrainRatio,
        telemetry: Telemetry,
        prefill: int,
        inspection: Inspection | None = None,
        *,
        awaited: bool = False,
    ) -> None:
        """`awaited`: somebody waits for each action, as the program that steps a session does."""
        self._env = env
        self._player = player
        self._weights = weights
        self._replay = replay
        self._ratio = ratio
        self._telemetry = telemetry
        self.prefill = prefill
        """Complete windows in the replay before the first update."""
        self.inspection = inspection
        """Of the first rows of a run whose environment may be anybody's."""
        self.running = False
        """Whether the environments already run (a lockstep run that was restored exactly)."""
        self._episodes = EpisodeTracker(env.num_envs)
        self._scores: deque[float] = deque(maxlen=SCORED_EPISODES)
        """Of the newest episodes of this process."""
        self.suite_scores = SuiteScores(env.spec.suite)
        """By the rules of a benchmark that has scores of its own."""
        self._awaited = awaited
        self._prepared = -math.inf
        """When the policy took weights over, while it waited for rows."""
        self.stages = Stages()

    async def collect(self, env_thread: OwnedThread, policy_thread: OwnedThread) -> None:
        """Collect until cancelled; the environments must have been started."""
        while True:
            if self._awaited:
                step, acted = await policy_thread.run_or_leave(self._serve)
            else:
                with self.stages.measure("env_wait"):
                    step = await env_thread.run_or_leave(self._env.recv)
                with self.stages.measure("ratio_wait"):
                    await self._ratio.room()
                acted = await policy_thread.run(self.act, step)
            if step.executed is not None:
                self._replay.amend(step.env_id, step.executed)
            self._env.send(acted.action, step.env_id)
            self.store(step, acted)
            await self._ratio.notify()

    def _serve(self) -> tuple[StepBatch, Acted]:
        """Give whoever waits the last actions, get ready for the next rows, and act on them."""
        self._env.answer()
        self.prepare()
        with self.stages.measure("env_wait"):
            step = self._env.recv()
        return step, self.act(step)

    def prepare(self) -> None:
        """Take over the newest weights before there are rows to act on."""
        self._player.prepare(self._weights, self._env.batch_size)
        self._prepared = time.monotonic()

    def report(self, findings: Sequence[str]) -> None:
        """Warn of what is wrong with the environment."""
        for finding in findings:
            self._telemetry.warn(f"about the environment: {finding}")

    def act(self, step: StepBatch) -> Acted:
        """Act on the rows with the newest weights, or those of a moment ago."""
        with self.stages.measure("policy"):
            if time.monotonic() - self._prepared > FRESH_SECONDS:
                self._player.refresh(self._weights)
            return self._player.act(step)

    def state(self) -> dict[str, Tensor]:
        """The running episodes' scores and lengths."""
        return {name: torch.from_numpy(a) for name, a in self._episodes.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore `state()`, after the environments and the player were restored."""
        self._episodes.load_state({name: tensor.numpy() for name, tensor in state.items()})

    @property
    def score(self) -> float | None:
        """Mean score of the last SCORED_EPISODES, None before there are as many."""
        full = len(self._scores) == SCORED_EPISODES
        return sum(self._scores) / SCORED_EPISODES if full else None

    def store(self, step: StepBatch, acted: Acted) -> None:
        """Append the rows to the replay and count them; pass on what the environments report."""
        for notice in [*self._env.notices(), *self._player.notices()]:
            self._telemetry.warn(notice)
        with self.stages.measure("insert"):
            append(self._replay, step, acted)
        if self.inspection is not None:
            self.report(self.inspection.add(step))
        self._ratio.insert(len(step.env_id))
        for episode in self._episodes.update(step, self._ratio.inserted):
            self.finished(episode)
        if not self._ratio.started and self._replay.windows >= self.prefill:
            self._ratio.start()
            self._telemetry.enter(self._ratio.phase)

    def finished(self, episode: Episode) -> None:
        """Tell of an episode, of this rank or another one, and count it."""
        self._telemetry.emit(episode)
        if scores := self.suite_scores.add(episode, self._telemetry.position.updates):
            self._telemetry.emit(scores)
        self._scores.append(episode.score or 0.0)
