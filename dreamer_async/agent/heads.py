"""Heads on the latent state: reward, continue, critic and the two kinds of actor.

Legend: F feat, U units, M bins, A action.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dreamer_async.agent.distributions import (
    bounded_normal,
    categorical_entropy,
    class_logprob,
    normal_entropy,
    normal_logprob,
    sample_class,
    sample_normal,
    twohot_bins,
    twohot_loss,
    twohot_mean,
)
from dreamer_async.agent.nets import MLP, Linear
from dreamer_async.config import ModelConfig

if TYPE_CHECKING:
    from envs.spec import ActionSpec

UNIT_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard normal, in nats."""


class Outputs(nn.Module):
    """Named linear outputs of a head, all with one initial scale."""

    def __init__(self, inputs: int, outputs: dict[str, int], outscale: float) -> None:
        super().__init__()
        for name, size in outputs.items():
            self.add_module(name, Linear(inputs, size, outscale))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x).float() for layer in self.children())


class TwohotHead(nn.Module):
    """A scalar as a distribution over symexp bins: [..., F] -> [..., M] logits, float32."""

    bins: Tensor

    def __init__(self, inputs: int, units: int, layers: int, bins: int) -> None:
        super().__init__()
        self.mlp = MLP(inputs, units, layers)
        self.head = Outputs(units, {"logits": bins}, 0.0)
        self.register_buffer("bins", twohot_bins(bins), persistent=False)

    def forward(self, feat: Tensor) -> Tensor:
        return self.head(self.mlp(feat))[0]

    def mean(self, logits: Tensor) -> Tensor:
        return twohot_mean(logits, self.bins)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return twohot_loss(torch.log_softmax(logits, -1), target, self.bins)


class ContHead(nn.Module):
    """Logit of the episode going on: [..., F] -> [...] float32."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.mlp = MLP(inputs, units, layers)
        self.head = Outputs(units, {"logit": 1}, 1.0)

    def forward(self, feat: Tensor) -> Tensor:
        return self.head(self.mlp(feat))[0].squeeze(-1)


class Actor(nn.Module):
    """pi(a | h, z): categorical for discrete actions, bounded normal for continuous ones.

    `forward` gives the parameters of the distribution, which the other methods take: log
    probabilities [..., A], or mean and standard deviation, each [..., A].
    """

    def __init__(self, inputs: int, action: ActionSpec, config: ModelConfig) -> None:
        super().__init__()
        self.discrete = action.kind == "discrete"
        self.size = action.size
        self.std_range = (config.actor_min_std, config.actor_max_std)
        self.mlp = MLP(inputs, config.units, config.actor_layers)
        names = ("logits",) if self.discrete else ("mean", "stddev")
        outputs = Outputs(config.units, dict.fromkeys(names, action.size), config.actor_outscale)
        self.head = nn.ModuleDict({"action": outputs})

    def forward(self, feat: Tensor) -> tuple[Tensor, ...]:
        outs = self.head["action"](self.mlp(feat))
        if self.discrete:
            return (torch.log_softmax(outs[0], -1),)
        mean, std = outs
        return bounded_normal(mean, std, *self.std_range)

    def sample(self, params: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        """Class indices [...] or vectors [..., A]; noise as in `distributions`."""
        if self.discrete:
            return sample_class(params[0].exp(), noise)
        mean, std = params
        return sample_normal(mean, std, noise)

    def logprob(self, params: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Log probability (density) of actions: [...]."""
        if self.discrete:
            return class_logprob(params[0], action)
        mean, std = params
        return normal_logprob(mean, std, action)

    def entropy(self, params: tuple[Tensor, ...]) -> Tensor:
        """Entropy in nats: [...]."""
        return categorical_entropy(params[0]) if self.discrete else normal_entropy(params[1])

    def randomness(self, entropy: Tensor) -> Tensor:
        """Entropy as a share of what is possible: 0 deterministic, 1 uniform (or widest)."""
        low, high = self.std_range
        if self.discrete:
            return entropy / math.log(max(2, self.size))
        least, most = (self.size * (math.log(std) + UNIT_ENTROPY) for std in (low, high))
        return (entropy - least) / (most - least)
