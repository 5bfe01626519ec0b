"""What the world model computes: latent states, filtered sequences, imagined trajectories.

The paper's model state s_t = (h_t, z_t) (eq. 3) is `RSSMState`, and what the heads read of it is
`feat`. `rssm` makes the first two, `actor_critic` the others.

Legend: B batch, T time, R imagined rows, H horizon, D deter, S stoch, K classes, M bins, A action,
C columns of several actions, F = D + S * K feat.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RSSMState(NamedTuple):
    """The model state s = (h, z) of eq. 3, in the compute type."""

    deter: Tensor
    """[..., D] deterministic state h."""
    stoch: Tensor
    """[..., S, K] one-hot samples z."""

    @property
    def feat(self) -> Tensor:
        """[..., F] what the heads read."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)


class Observed(NamedTuple):
    """The posterior states of a replayed sequence."""

    state: RSSMState
    """[B, T, ...] states after each observation."""
    logits: Tensor
    """[B, T, S, K] raw posterior logits, float32."""


class Trajectory(NamedTuple):
    """Eq. 6: what the actor does inside the world model; no gradient flows into it."""

    feat: Tensor
    """[R, H+1, F] start state and imagined states."""
    action: Tensor
    """[R, H], [R, H, A] or [R, H, C] action taken in each state but the last."""


class Imagined(NamedTuple):
    """A trajectory, and what the heads say of its states."""

    trajectory: Trajectory
    """States and actions."""
    policy: tuple[Tensor, ...]
    """[R, H+1, *] parameters of the actor's distributions, with their gradient."""
    value_logits: Tensor
    """[R, H+1, M] of the critic, with their gradient."""
    value: Tensor
    """[R, H+1] critic (eq. 8)."""
    reward: Tensor
    """[R, H+1] predicted reward, which arrives with the state."""
    cont: Tensor
    """[R, H+1] predicted probability of going on, times the discount if `discount_in_cont`."""
    slow: Tensor
    """[R, H+1] slow critic."""
