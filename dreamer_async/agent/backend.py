"""Who computes the loops of an agent: chosen once, and handed to whoever learns or acts.

`PYTORCH` is the readable one, which every other is tested against: its loops are those of `RSSM`,
`Agent` and `LaProp`, and its operations those of `ops`. The others are in `dreamer_async.fast`,
whose `place` is where one is picked: `-s train.backend=pytorch` takes this one. Nothing of the
paper is here.

Legend: N rows, E embed, W action as the world model reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import NamedTuple, Protocol

from torch import Tensor

from dreamer_async.agent.actions import embed_action
from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.heads import Actor
from dreamer_async.agent.ops import PYTORCH as PYTORCH_OPS
from dreamer_async.agent.ops import Ops
from dreamer_async.agent.optim import LaProp
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Imagined, Observed, RSSMState
from dreamer_async.config import ModelConfig, OptimConfig

Observe = Callable[[RSSMState, Tensor, Tensor, Tensor, Tensor], Observed]
"""Filters a sequence as `RSSM.observe` does."""
Imagine = Callable[[RSSMState, Tensor, Tensor], Imagined]
"""Imagines as `Agent.imagine` does."""


class Act(Protocol):
    """One acting step between encoding and copying out."""

    def __call__(
        self,
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[RSSMState, Tensor]:
        """From the state and action before, and embed [N, E], to those after.

        state and action are as in `PolicyCarry`, reset is [N] bool, and both kinds of noise are as
        in `PolicyNoise`.
        """
        ...


class Backend(NamedTuple):
    """Operations, and what makes the loops of a model, each from the part that it belongs to."""

    name: str
    """For people."""
    ops: Ops
    """What all parts compute through."""
    filtering: Callable[[RSSM], Observe]
    """Over a replayed sequence (eq. 3)."""
    imagination: Callable[[Agent], Imagine]
    """Of the actor in the world model (eq. 6)."""
    acting: Callable[[RSSM, Actor], Act]
    """In the environment."""
    optimiser: Callable[[Mapping[str, Tensor], OptimConfig], LaProp]
    """Of named parameters."""
    gaps: Callable[[ModelConfig], str] = lambda model: ""
    """What of a model another backend computes, for people; mostly nothing."""


def acting(dyn: RSSM, pol: Actor) -> Act:
    """PyTorch's: observe, then sample an action."""

    def act(
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[RSSMState, Tensor]:
        previous = embed_action(pol.action, action, state.deter.dtype)  # [N, W]
        state, _ = dyn.observe_step(state, embed, previous, reset, noise)
        return state, pol.sample(pol(state.feat), action_noise)

    return act


PYTORCH = Backend(
    "PyTorch", PYTORCH_OPS, attrgetter("observe"), attrgetter("imagine"), acting, LaProp
)
