"""Open-loop prediction: what the model expects to see when it only knows the actions.

The paper's figures of video prediction; no loss is made of it. Read `world_model` before.

Legend: B batch, T time, S stoch, W action as the world model reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.backend import Observe
from dreamer_async.agent.batch import Batch, Noise
from dreamer_async.agent.distributions import symexp
from dreamer_async.agent.states import RSSMState


class OpenLoop(NamedTuple):
    """One observation key, three ways; images in [0, 1], vectors in their own units."""

    real: Tensor
    """[B, T, *] what was observed."""
    reconstruction: Tensor
    """[B, T, *] decoded from states that saw every observation."""
    prediction: Tensor
    """[B, T, *] decoded from states that saw only the first few observations."""


@torch.no_grad()
def open_loop(
    agent: Agent, batch: Batch, noise: Noise, context: int = 5, observe: Observe | None = None
) -> dict[str, OpenLoop]:
    """Observe a batch, and predict it from its first `context` steps and its actions.

    Arguments are those of `filter_and_dream`; every observation key is in the result.
    """
    observed, dreamed = filter_and_dream(agent, batch, noise, context, observe)
    seen, expected = decode(agent, observed), decode(agent, dreamed)
    real_obs = {key: real(batch.obs[key][:, 1:]) for key in agent.spec.obs}
    return {key: OpenLoop(real_obs[key], seen[key], expected[key]) for key in agent.spec.obs}


@torch.no_grad()
def filter_and_dream(
    agent: Agent, batch: Batch, noise: Noise, context: int = 5, observe: Observe | None = None
) -> tuple[RSSMState, RSSMState]:
    """States [B, T, ...] that saw all observations, and those that saw the first `context` only.

    `observe` filters instead of the model itself, if it is given. Only `noise.posterior` [B, T, S]
    is used, for posterior and imagined samples alike.
    """
    length = batch.reward.shape[1] - 1
    if not 0 < context < length:
        raise ValueError(f"context is {context}; use 1 to {length - 1} for {length} steps")
    actions = actions_before(agent, batch)  # [B, T, W]
    observed = filter_states(agent, batch, actions, noise.posterior, observe)
    state = RSSMState(*(part[:, context - 1] for part in observed))  # [B, ...]
    states = [RSSMState(*(part[:, t] for part in observed)) for t in range(context)]
    for t in range(context, length):
        state = agent.dyn.imagine_step(state, actions[:, t], noise.posterior[:, t])
        states.append(state)
    return observed, RSSMState(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))


def actions_before(agent: Agent, batch: Batch) -> Tensor:
    """The action before each step of a batch, as the world model reads it: [B, T, W]."""
    return agent.embed_action(batch.action[:, :-1])


def filter_states(
    agent: Agent, batch: Batch, actions: Tensor, noise: Tensor, observe: Observe | None = None
) -> RSSMState:
    """States [B, T, ...] that saw all observations, with `actions_before` and noise [B, T, S]."""
    obs = {key: value[:, 1:] for key, value in batch.obs.items()}
    start = agent.state(batch.deter, batch.stoch)
    observe = observe or agent.dyn.observe
    return observe(start, agent.encode(obs), actions, batch.is_first[:, 1:], noise).state


def real(observation: Tensor) -> Tensor:
    """Scale images to [0, 1]; leave everything else as it is."""
    return observation.float() / 255.0 if observation.dtype == torch.uint8 else observation


def decode(agent: Agent, state: RSSMState) -> dict[str, Tensor]:
    """Reconstruct observations from states: [B, T, ...] -> {key: [B, T, *]}.

    Images in [0, 1], floats in their own units (eq. 2), integers as their likeliest class.
    """
    outs = agent.dec(state.deter.flatten(0, 1), state.stoch.flatten(0, 1))  # [B * T, *]
    lead = state.deter.shape[:2]
    for key, spec in agent.spec.obs.items():
        out = outs[key]
        if spec.classes:
            out = out.argmax(-1)
        elif not spec.is_image:
            out = symexp(out)
        outs[key] = out.reshape(*lead, *spec.shape)
    return outs
