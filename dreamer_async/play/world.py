"""A world model that one can act in: its states, what it shows, and what it expects.

A game begins at a real moment, filtered from the replay or from a real environment, and from then
on knows only the actions.

Legend: B batch, T time, D deter, S stoch, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.agent.actions import draw_action_noise
from dreamer_async.agent.open_loop import decode
from dreamer_async.agent.states import RSSMState
from dreamer_async.config import Config
from dreamer_async.envs.spec import StepBatch
from dreamer_async.share.dream import NothingToSee, sample, trainer_of
from dreamer_async.share.reel import coloured, frame_of
from dreamer_async.store import checkpoint
from dreamer_async.store.run_dir import RunDir

Action = NDArray[Any]
"""One action: [] int32, or [A] or [C] float32."""


class Moment(NamedTuple):
    """What the model shows and expects."""

    picture: NDArray[np.uint8]
    """[H, W, 3]."""
    reward: float
    """Expected with this state."""
    value: float
    """Of the critic."""
    cont: float
    """Probability that the episode goes on."""


class World:
    """One game inside the world model of a checkpoint, on the CPU."""

    def __init__(self, run: RunDir, found: checkpoint.Checkpoint, seed: int = 0) -> None:
        """Raises NothingToSee if the run observes no images."""
        trainer = trainer_of(found)
        self.config, self.spec = trainer.config, trainer.spec
        images = [key for key, obs in self.spec.obs.items() if obs.is_image]
        if not images:
            observed = ", ".join(self.spec.obs)
            raise NothingToSee(f"{run.name} observes no images, only {observed}: nothing to show")
        self._run, self._image = run, images[0]
        self.agent = trainer.agent.requires_grad_(False)
        self._trainer = trainer
        self._generator = torch.Generator().manual_seed(seed)
        self._seed = seed
        self._moments: Iterator[RSSMState] = iter(())
        self._state = self.agent.dyn.initial(1, self.agent.dtype, None)
        self.actions = 0
        """Since the last real moment."""

    @torch.no_grad()
    def restart(self) -> Moment:
        """Begin at another real moment of the replay; raises NothingToSee without one."""
        state = next(self._moments, None)
        if state is None:
            self._moments = self._filtered()
            state = next(self._moments)
        return self._begin(state)

    def _filtered(self) -> Iterator[RSSMState]:
        """One state of every sequence of a batch of the replay, somewhere in its first half."""
        batch = sample(self._run, self.config, self.spec, self._seed).batch()
        self._seed += 1
        agent, noise = self.agent, self._trainer.draw_noise(self._generator)
        obs = {key: value[:, 1:] for key, value in batch.obs.items()}
        start = agent.state(batch.deter, batch.stoch)
        before = agent.embed_action(batch.action[:, :-1])
        first = batch.is_first[:, 1:]
        states = agent.dyn.observe(start, agent.encode(obs), before, first, noise.posterior).state
        rows, length = first.shape
        times = torch.randint(length // 2 + 1, (rows,), generator=self._generator).tolist()
        for row, t in enumerate(times):
            yield RSSMState(*(part[row : row + 1, t] for part in states))

    @torch.no_grad()
    def restart_from(self, step: StepBatch) -> Moment:
        """Begin with the first observation of a real episode."""
        agent, model = self.agent, self.config.model
        obs = {key: torch.as_tensor(step.obs[key][:1])[None] for key in self.spec.obs}
        embed = agent.encode(obs)[0]  # [1, E]
        state = agent.dyn.initial(1, agent.dtype, None)
        none = torch.zeros(1, self.spec.action.width)
        noise = torch.rand(1, model.stoch, generator=self._generator)
        state, _ = agent.dyn.observe_step(
            state, embed, none, torch.ones(1, dtype=torch.bool), noise
        )
        return self._begin(state)

    def _begin(self, state: RSSMState) -> Moment:
        self._state, self.actions = state, 0
        return self.look()

    @torch.no_grad()
    def step(self, action: Action) -> Moment:
        """What follows an action, by the model alone."""
        embedded = self.agent.embed_action(torch.as_tensor(action)[None])
        noise = torch.rand(1, self.config.model.stoch, generator=self._generator)
        self._state = self.agent.dyn.imagine_step(self._state, embedded, noise)
        self.actions += 1
        return self.look()

    @torch.no_grad()
    def choose(self) -> Action:
        """What the agent does here, sampled."""
        noise = draw_action_noise(self.spec.action, (1,), self._generator)
        action = self.agent.pol.sample(self.agent.pol(self._state.feat), noise)
        return action[0].numpy().astype(self.spec.action.dtype)

    @torch.no_grad()
    def look(self) -> Moment:
        """The state as it is now."""
        agent, state = self.agent, self._state
        decoded = decode(agent, RSSMState(*(part[:, None] for part in state)))
        picture = decoded[self._image][0, 0].numpy()
        feat = state.feat
        discount = agent.discount if agent.loss.discount_in_cont else 1.0
        return Moment(
            coloured(np.round(255 * picture.clip(0, 1)).astype(np.uint8)),
            float(agent.rew.mean(agent.rew(feat))),
            float(agent.val.mean(agent.val(feat))),
            min(1.0, float(torch.sigmoid(agent.con(feat))) / discount),
        )


class Reality:
    """One real environment that gets the same actions."""

    def __init__(self, pool: envs.VectorEnv) -> None:
        self._pool = pool
        self.score = 0.0
        self.reward = 0.0
        self.ended = False

    def restart(self) -> StepBatch:
        """Begin an episode."""
        self._pool.start()
        self.score, self.reward, self.ended = 0.0, 0.0, False
        return self._pool.recv()

    def step(self, action: Action) -> NDArray[np.uint8]:
        """Do what was done in the dream; the picture after it."""
        self._pool.send(np.asarray(action)[None], np.zeros(1, np.int32))
        rows = self._pool.recv()
        self.reward = float(rows.reward[0])
        self.score += self.reward
        self.ended = bool(rows.is_last[0])
        return self.picture(rows)

    def picture(self, rows: StepBatch) -> NDArray[np.uint8]:
        """[H, W, 3], drawn by the environment itself or else observed."""
        return frame_of(self._pool, rows, 0)


@contextmanager
def reality(config: Config, seed: int) -> Iterator[Reality]:
    """Open a real environment of a run's task."""
    env = config.env
    with envs.make(
        env.suite,
        env.task,
        num_envs=1,
        seed=seed,
        resize=env.resize,
        view=envs.View.of(env),
        drawn=True,
    ) as pool:
        yield Reality(pool)
