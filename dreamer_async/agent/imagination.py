"""Imagination as one native function for all steps (`kernels/imagination.cpp`).

Legend: R rows, H horizon, F feat, C columns of several actions.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.dense import Dense, Stack
from dreamer_async.agent.nets import dense_layers
from dreamer_async.agent.packed_actor import (
    ActionPart,
    PackedActions,
    PackedActor,
    split_action_noise,
)
from dreamer_async.agent.recurrent import address, core_of, pointers, split_noise, weights_of

if TYPE_CHECKING:
    from dreamer_async.agent.heads import Actor
    from dreamer_async.agent.rssm import RSSM


def imagine(
    dyn: RSSM, actor: Actor, start: Tensor, action_noise: Tensor, prior_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Roll out H steps from start [R, F]: feat [R, H+1, F], action [R, H, *]; no gradients."""
    rows, horizon = action_noise.shape[:2]
    feat = start.new_empty(rows, horizon + 1, start.shape[-1])
    feat[:, 0] = start
    action = start.new_empty(rows, horizon, actor.action.columns)
    drawn, given = split_action_noise(actor.action, action_noise)
    uniform, chosen = split_noise(prior_noise)
    core, _held = core_of(dyn, weights_of(dyn))
    policy, actions = PackedActor(actor), PackedActions(dyn, actor.action)
    prior = Stack(_prior_layers(dyn))
    kernels.library().imagine_forward(
        ctypes.byref(core),
        ctypes.byref(policy.structure),
        ctypes.byref(
            _Imagined(
                actions.structure, prior.address, prior.count, horizon,
                *map(address, (drawn, given, uniform, chosen, feat, action)),
            )
        ),
        ctypes.c_long(rows), kernels.threads(feat.numel()),
    )  # fmt: skip
    return feat, action[..., 0].long() if actor.action.kind == "discrete" else action


def _prior_layers(dyn: RSSM) -> list[Dense]:
    return [*dense_layers(dyn.prior_stack), Dense(dyn.priorlogit.kernel, dyn.priorlogit.bias, None)]


class _Imagined(ctypes.Structure):
    """As in `imagination.cpp`."""

    _fields_ = (
        ("action", ActionPart),
        *pointers("prior"),
        ("prior_count", ctypes.c_int),
        ("horizon", ctypes.c_long),
        *pointers("action_noise", "chosen_actions", "noise", "chosen", "feat", "actions"),
    )
