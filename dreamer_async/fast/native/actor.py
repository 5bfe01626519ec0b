"""The actor, and what the world model reads of actions, as native functions take them (`actor.h`).

Both are copies, which must be made anew when parameters change.

Legend: R rows, H horizon, A action, C columns of several actions, D deter.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from dreamer_async.agent.heads import Actor, Head
from dreamer_async.agent.ops import Dense
from dreamer_async.agent.rssm import RSSM
from dreamer_async.envs.spec import ActionSpec
from dreamer_async.fast.native import structs
from dreamer_async.fast.native.core import action_layers
from dreamer_async.fast.native.dense import Stack, dense_stack, side_by_side
from dreamer_async.fast.native.library import floats

MOST_CLASSES = 256
"""Up to so many classes of one action, what the world model reads of each is computed before."""


def layers_of(head: Actor | Head) -> list[Dense]:
    """The hidden layers, and one for all outputs."""
    return [*head.hidden(), side_by_side(head.outputs())]


class PackedActor:
    """pi(a | h, z) with the kinds of its actions."""

    def __init__(self, actor: Actor, stack: Stack | None = None) -> None:
        parts = actor.heads
        self._stack = stack or Stack(layers_of(actor))
        self._sizes = (ctypes.c_int * len(parts))(*(head.size for head in parts))
        self._kinds = (ctypes.c_int * len(parts))(*(head.discrete for head in parts))
        self.structure = structs.Actor(
            self._stack.address, self._stack.count, len(parts),
            ctypes.addressof(self._sizes), ctypes.addressof(self._kinds), *parts[0].std_range,
        )  # fmt: skip


class PackedActions:
    """What dynhid reads of actions: a stack of layers, and of a single class a table."""

    def __init__(self, dyn: RSSM, spec: ActionSpec) -> None:
        layers = action_layers(dyn)
        self._stack = Stack(layers)
        self._table: Tensor | None = None
        if spec.kind == "discrete" and spec.size <= MOST_CLASSES:
            classes = torch.eye(spec.size + 1, spec.size)  # zeros at the end: no action
            with torch.no_grad():
                self._table = dense_stack(classes, layers)
        self.structure = structs.ActionPart(
            self._stack.address, self._stack.count, spec.size, floats(self._table)
        )


def split_action_noise(spec: ActionSpec, noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Random numbers, or the actions that they stand for: [..., C]."""
    if spec.kind == "discrete":
        noise = noise.unsqueeze(-1)
    if noise.dtype in (torch.float64, torch.int64):
        return None, noise.double().contiguous()
    return noise.contiguous(), None
