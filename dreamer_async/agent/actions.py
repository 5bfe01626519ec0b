"""Actions as tensors: what the world model reads of them, and the random numbers behind them.

An action is one class index [...], one vector [..., A], or several of these side by side in one
float32 vector [..., C], where a class index takes one column (see `envs.spec.ActionSpec`).

Read by every part that takes an action or draws one; the specs are in `envs.spec`.

Legend: A dimensions or classes of one action, C columns of several, W numbers that the world model
reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreamer_async.agent.distributions import onehot

if TYPE_CHECKING:
    from dreamer_async.envs.spec import ActionSpec


def embed_action(spec: ActionSpec, action: Tensor, dtype: torch.dtype) -> Tensor:
    """One-hot class indices, pass vectors on: [...], [..., A] or [..., C] -> [..., W]."""
    if spec.kind == "discrete":
        return onehot(action, spec.size, dtype)
    if spec.kind == "continuous":
        return action.to(dtype)
    parts = zip(spec.parts, split_action(spec, action), strict=True)  # each [...] or [..., A]
    return torch.cat([embed_action(part, column, dtype) for (_, part), column in parts], -1)


def split_action(spec: ActionSpec, action: Tensor) -> list[Tensor]:
    """Several actions [..., C], or their noise, as one tensor each: [...] or [..., A]."""
    columns = zip(spec.parts, spec.slices(), strict=True)
    return [
        action[..., place.start] if part.kind == "discrete" else action[..., place]
        for (_, part), place in columns
    ]


def join_action(spec: ActionSpec, actions: list[Tensor]) -> Tensor:
    """The inverse of `split_action`: [..., C] float32."""
    columns = [
        action.unsqueeze(-1) if part.kind == "discrete" else action
        for (_, part), action in zip(spec.parts, actions, strict=True)
    ]
    return torch.cat([column.float() for column in columns], -1)  # [..., C]


def draw_action_noise(
    spec: ActionSpec, lead: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Uniform numbers for class indices, normal ones for vectors, on the generator's device.

    Of a shape `lead`, then [], [A] or [C].
    """
    if spec.kind == "several":
        parts = [draw_action_noise(part, lead, generator) for _, part in spec.parts]
        return join_action(spec, parts)
    draw = torch.rand if spec.kind == "discrete" else torch.randn
    return draw(*lead, *spec.shape, generator=generator, device=generator.device)
