"""Who computes the loops of an agent: chosen once, and handed to whoever learns or acts.

`PYTORCH` is the readable one, which every other is tested against: the loops are those of `RSSM`,
`Agent` and `LaProp`. The others are in `dreamer_async.fast`.

Legend: N rows, D deter, S stoch, K classes, E embed.
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
    """One acting step: encode comes before, copies come after."""

    def __call__(
        self,
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[RSSMState, Tensor]:
        """From state and action before, and embed [N, E], to those after; reset is [N] bool.

        Both kinds of noise are as in `PolicyNoise`.
        """
        ...


class Backend(NamedTuple):
    """Operations, and what makes the loops of a model from them."""

    name: str
    """For people."""
    ops: Ops
    filtering: Callable[[RSSM], Observe]
    imagination: Callable[[Agent], Imagine]
    acting: Callable[[RSSM, Actor], Act]
    optimiser: Callable[[Mapping[str, Tensor], OptimConfig], LaProp]
    gaps: Callable[[ModelConfig], str] = lambda model: ""
    """What of a model another backend computes, for people; mostly nothing."""


def acting(dyn: RSSM, pol: Actor) -> Act:
    """Observe, then sample an action."""

    def act(
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[RSSMState, Tensor]:
        previous = embed_action(pol.action, action, state.deter.dtype)
        state, _ = dyn.observe_step(state, embed, previous, reset, noise)
        return state, pol.sample(pol(state.feat), action_noise)

    return act


PYTORCH = Backend(
    "PyTorch", PYTORCH_OPS, attrgetter("observe"), attrgetter("imagine"), acting, LaProp
)
