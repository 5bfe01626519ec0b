"""What the world model computes: latent states, filtered sequences, imagined trajectories.

Legend: B batch, T time, R imagined rows, H horizon, D deter, S stoch, K classes, M bins, A action,
F = D + S * K feat.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RSSMState(NamedTuple):
    """The latent state, in the compute type."""

    deter: Tensor
    """[..., D] deterministic state h."""
    stoch: Tensor
    """[..., S, K] one-hot samples z."""

    @property
    def feat(self) -> Tensor:
        """[..., F] what the heads read."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)


class Observed(NamedTuple):
    """The posterior states of a sequence."""

    state: RSSMState
    """[B, T, ...] states after each observation."""
    logits: Tensor
    """[B, T, S, K] raw posterior logits, float32."""


class Trajectory(NamedTuple):
    """What the policy does inside the world model; no gradient flows into it."""

    feat: Tensor
    """[R, H+1, F] start state and imagined states."""
    action: Tensor
    """[R, H] or [R, H, A] action taken in each state but the last."""


class Imagined(NamedTuple):
    """A trajectory, and what the heads say of its states."""

    trajectory: Trajectory
    policy: tuple[Tensor, ...]
    """[R, H+1, *] parameters of the actor's distributions, with their gradient."""
    value_logits: Tensor
    """[R, H+1, M] of the critic, with their gradient."""
    value: Tensor
    """[R, H+1] critic."""
    reward: Tensor
    """[R, H+1] predicted rewards."""
    cont: Tensor
    """[R, H+1] predicted continuation."""
    slow: Tensor
    """[R, H+1] slow critic."""
