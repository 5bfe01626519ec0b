"""Acting as one native function (`src/acting.cpp`): a step of filtering, and an action.

Legend: N rows, D deter, S stoch, K classes, E embed, A action, C columns of several actions.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent.backend import Act
from dreamer_async.agent.heads import Actor
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import RSSMState
from dreamer_async.fast.native import library
from dreamer_async.fast.native.actor import PackedActions, PackedActor, split_action_noise
from dreamer_async.fast.native.core import core_of, fits, token_layer, weights_of
from dreamer_async.fast.native.dense import Stack
from dreamer_async.fast.native.library import address, floats, is_float32, split_noise
from dreamer_async.fast.native.structs import Acting


def acting(dyn: RSSM, actor: Actor, otherwise: Act) -> Act:
    """Acting in float32; other types and layers are left to somebody else."""
    return ActingStep(dyn, actor, otherwise) if fits(dyn.config) else otherwise


class ActingStep:
    """One acting step of a model and an actor, whose parameters it packs when they changed."""

    def __init__(self, dyn: RSSM, actor: Actor, otherwise: Act) -> None:
        self._dyn, self._actor, self._otherwise = dyn, actor, otherwise
        self._parameters = [*dyn.parameters(), *actor.parameters()]
        self._versions: list[int] = []
        self._held: list[Any] = []
        """What the structures point to."""

    def __call__(
        self,
        state: RSSMState,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[RSSMState, Tensor]:
        """See `backend.Act`."""
        if not is_float32(embed, *state):
            return self._otherwise(state, action, embed, reset, noise, action_noise)
        self._pack()
        spec = self._actor.action
        inputs = [x.contiguous() for x in (embed, *state)]
        reset = reset.contiguous()
        last_action = action.double().view(len(action), spec.columns)
        drawn, given = split_action_noise(spec, action_noise)
        uniform, chosen = split_noise(noise)
        next_deter, next_stoch = torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
        acted = embed.new_empty(len(action), spec.columns)
        acting = Acting(
            self._actions.structure, self._token.address, *map(floats, inputs),
            *map(address, (last_action, reset, uniform, chosen, drawn, given)),
            *map(floats, (next_deter, next_stoch, acted)),
        )  # fmt: skip
        library.functions().act_forward(
            ctypes.byref(self._core), ctypes.byref(self._policy.structure), ctypes.byref(acting),
            len(action),
        )  # fmt: skip
        after = RSSMState(next_deter, next_stoch)
        return after, acted[:, 0].long() if spec.kind == "discrete" else acted

    def _pack(self) -> None:
        versions = [parameter._version for parameter in self._parameters]
        if versions == self._versions:
            return
        self._core, *self._held = core_of(self._dyn, weights_of(self._dyn))
        self._policy = PackedActor(self._actor)
        self._actions = PackedActions(self._dyn, self._actor.action)
        self._token = Stack([token_layer(self._dyn)])
        self._versions = versions
