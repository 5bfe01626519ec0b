"""Acting as one native function (`kernels/acting.cpp`): a step of filtering, and an action.

Legend: N rows, D deter, S stoch, K classes, E embed, A action, C columns of several actions.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.dense import Stack
from dreamer_async.agent.kernels import floats
from dreamer_async.agent.packed_actor import PackedActions, PackedActor, split_action_noise
from dreamer_async.agent.recurrent import address, core_of, split_noise, token_layer, weights_of
from dreamer_async.agent.structs import Acting

if TYPE_CHECKING:
    from dreamer_async.agent.heads import Actor
    from dreamer_async.agent.rssm import RSSM


class NativeStep:
    """One acting step of a model and an actor, whose parameters it packs when they changed."""

    def __init__(self, dyn: RSSM, actor: Actor) -> None:
        self._dyn, self._actor = dyn, actor
        self._parameters = [*dyn.parameters(), *actor.parameters()]
        self._versions: list[int] = []
        self._held: list[Any] = []
        """What the structures point to."""

    def __call__(
        self,
        deter: Tensor,
        stoch: Tensor,
        action: Tensor,
        embed: Tensor,
        reset: Tensor,
        noise: Tensor,
        action_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take the step from h [N, D], z [N, S, K] and an action; returns the next of each.

        `embed` is [N, E], `reset` [N] bool; both kinds of noise are as in `PolicyNoise`.
        """
        self._pack()
        spec = self._actor.action
        inputs = [x.contiguous() for x in (embed, deter, stoch)]
        before = action.double().view(len(action), spec.columns)
        drawn, given = split_action_noise(spec, action_noise)
        uniform, chosen = split_noise(noise)
        next_deter, next_stoch = torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
        acted = embed.new_empty(len(action), spec.columns)
        acting = Acting(
            self._actions.structure, self._token.address, *map(floats, inputs),
            *map(address, (before, reset.contiguous(), uniform, chosen, drawn, given)),
            *map(floats, (next_deter, next_stoch, acted)),
        )  # fmt: skip
        kernels.library().act_forward(
            ctypes.byref(self._core), ctypes.byref(self._policy.structure), ctypes.byref(acting),
            len(action),
        )  # fmt: skip
        return next_deter, next_stoch, acted[:, 0].long() if spec.kind == "discrete" else acted

    def _pack(self) -> None:
        versions = [parameter._version for parameter in self._parameters]
        if versions == self._versions:
            return
        self._core, *self._held = core_of(self._dyn, weights_of(self._dyn))
        self._policy = PackedActor(self._actor)
        self._actions = PackedActions(self._dyn, self._actor.action)
        self._token = Stack([token_layer(self._dyn)])
        self._versions = versions
