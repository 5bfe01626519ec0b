"""Heads on the latent state: reward and continue of eq. 3, actor and critic of eq. 6.

Reward and critic are two-hot distributions (eq. 8 to 10). Read `nets` and `distributions` before,
`world_model` and `actor_critic` next.

Legend: F feat, M bins, A action, C columns of several actions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dreamer_async.agent.actions import join_action, split_action
from dreamer_async.agent.distributions import (
    bounded_normal,
    categorical_entropy,
    class_logprob,
    normal_entropy,
    normal_logprob,
    sample_normal,
    twohot_bins,
)
from dreamer_async.agent.nets import MLP, Linear, dense_layers
from dreamer_async.agent.ops import Dense, Part
from dreamer_async.config import ModelConfig

if TYPE_CHECKING:
    from dreamer_async.envs.spec import ActionSpec

UNIT_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard normal, in nats."""


class Outputs(Part):
    """Named linear outputs of a head, all with one initial scale; computed by `ops.heads`."""

    def __init__(self, inputs: int, outputs: dict[str, int], outscale: float) -> None:
        super().__init__()
        for name, size in outputs.items():
            self.add_module(name, Linear(inputs, size, outscale))

    def linears(self) -> list[Linear]:
        """The layers, in the order of the outputs."""
        return list(self.children())  # type: ignore[arg-type]


class Head(Part):
    """Hidden layers, and one output of the last of them."""

    def __init__(self, mlp: MLP, outputs: dict[str, int], outscale: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.head = Outputs(mlp.units, outputs, outscale)

    def forward(self, feat: Tensor) -> Tensor:
        """The output: [..., F] -> [..., *] float32."""
        return self.ops.heads(feat, self.hidden(), self.outputs())[0]

    def hidden(self) -> list[Dense]:
        """The hidden layers as operations take them."""
        return dense_layers(self.mlp.stack)

    def outputs(self) -> list[Dense]:
        """The output layers, likewise."""
        return [linear.layer() for linear in self.head.linears()]


class TwohotHead(Head):
    """A scalar as a distribution over symexp bins: [..., F] -> [..., M] logits, float32.

    The reward predictor of eq. 3 and the critic of eq. 6.
    """

    bins: Tensor
    """[M] the B of eq. 8."""

    def __init__(self, inputs: int, units: int, layers: int, bins: int) -> None:
        super().__init__(MLP(inputs, units, layers), {"logits": bins}, 0.0)
        self.register_buffer("bins", twohot_bins(bins), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """Eq. 8: the scalar that is expected, [..., M] -> [...]."""
        return self.ops.twohot_mean(logits, self.bins)

    def loss(self, logits: Tensor, *targets: tuple[float, Tensor]) -> Tensor:
        """Eq. 10: weighted sum of cross entropies of logits [..., M] and targets [...]: [...]."""
        return self.ops.twohot_loss(logits, self.bins, *targets)


class ContHead(Head):
    """The continue predictor of eq. 3, the logit of going on: [..., F] -> [...] float32."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__(MLP(inputs, units, layers), {"logit": 1}, 1.0)

    def forward(self, feat: Tensor) -> Tensor:
        return super().forward(feat).squeeze(-1)


class ActionHead(Outputs):
    """The distribution of one action: categorical, or a bounded normal.

    `params` gives its parameters, which the other methods take: log probabilities [..., A], or
    mean and standard deviation, each [..., A]. Native functions sample by themselves: with another
    distribution here alone, actions would come from the old one (`fast.copies`).
    """

    def __init__(self, inputs: int, action: ActionSpec, config: ModelConfig) -> None:
        self.discrete, self.size = action.kind == "discrete", action.size
        names = ("logits",) if self.discrete else ("mean", "stddev")
        super().__init__(inputs, dict.fromkeys(names, action.size), config.actor_outscale)
        self.std_range = (config.actor_min_std, config.actor_max_std)
        least, most = (action.size * (math.log(std) + UNIT_ENTROPY) for std in self.std_range)
        self.entropies = (0.0, math.log(max(2, action.size))) if self.discrete else (least, most)
        """Entropy of the most certain and of the least certain distribution, in nats."""

    def params(self, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the linear layers gave, [..., A] each, as parameters, [..., A] each."""
        if self.discrete:
            return (torch.log_softmax(outs[0], -1),)
        mean, std = outs  # [..., A] each, raw
        return bounded_normal(mean, std, *self.std_range)

    def sample(self, params: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        """Class indices [...] or vectors [..., A]; noise as in `distributions`."""
        if self.discrete:
            return self.ops.sample_class(params[0].exp(), noise)
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


class Actor(Part):
    """Eq. 6, pi(a | h, z): one head per action; several are independent given the state.

    `forward` gives the parameters of all heads in a row: [..., F] -> [..., A] each, float32. As in
    the official code, the log probabilities and entropies of several actions are summed, and no
    uniform share is mixed into class probabilities.
    """

    def __init__(self, inputs: int, action: ActionSpec, config: ModelConfig) -> None:
        super().__init__()
        self.action = action
        self.mlp = MLP(inputs, config.units, config.actor_layers)
        parts = dict(action.parts) or {"action": action}
        self.head = nn.ModuleDict(
            {
                _head_name(name): ActionHead(config.units, part, config)
                for name, part in parts.items()
            }
        )
        self.heads: list[ActionHead] = [*self.head.values()]  # type: ignore[list-item]
        self.entropies = [
            sum(ends) for ends in zip(*(h.entropies for h in self.heads), strict=True)
        ]

    def forward(self, feat: Tensor) -> tuple[Tensor, ...]:
        return self.params(self.ops.heads(feat, self.hidden(), self.outputs()))

    def params(self, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The parameters of all heads, from what all linear layers gave."""
        parts = iter(outs)
        return tuple(
            param
            for head in self.heads
            for param in head.params([next(parts) for _ in head.linears()])
        )

    def hidden(self) -> list[Dense]:
        """The hidden layers as operations take them."""
        return dense_layers(self.mlp.stack)

    def outputs(self) -> list[Dense]:
        """The layers of all parameters, likewise."""
        return [linear.layer() for linear in self.linears()]

    def linears(self) -> list[Linear]:
        """The layers of all parameters, in their order."""
        return [linear for head in self.heads for linear in head.linears()]

    def sample(self, params: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        """Class indices [...], vectors [..., A], or several [..., C]; noise is shaped alike."""
        if self.action.kind != "several":
            return self.heads[0].sample(params, noise)
        noises = split_action(self.action, noise)  # each [...] or [..., A]
        actions = [
            head.sample(own, part.long() if head.discrete and part.dtype == torch.float64 else part)
            for (head, own), part in zip(self._own(params), noises, strict=True)
        ]
        return join_action(self.action, actions)

    def mode(self, params: tuple[Tensor, ...]) -> Tensor:
        """The likeliest action of each head: shaped as those of `sample`."""
        modes = [own[0].argmax(-1) if h.discrete else own[0] for h, own in self._own(params)]
        return join_action(self.action, modes) if self.action.kind == "several" else modes[0]

    def logprob(self, params: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Log probability (density) of actions: [...]."""
        if self.action.kind != "several":
            return self.heads[0].logprob(params, action)
        actions = split_action(self.action, action)  # each [...] or [..., A]
        pairs = zip(self._own(params), actions, strict=True)
        return torch.stack([head.logprob(own, part) for (head, own), part in pairs]).sum(0)

    def entropy(self, params: tuple[Tensor, ...]) -> Tensor:
        """Entropy in nats: [...]."""
        if self.action.kind != "several":
            return self.heads[0].entropy(params)
        return torch.stack([head.entropy(own) for head, own in self._own(params)]).sum(0)

    def randomness(self, entropy: Tensor) -> Tensor:
        """Entropy [...] as a share of what is possible: 0 deterministic, 1 uniform (or widest).

        Nothing is where the deviation cannot change (actor_min_std = actor_max_std): 0.
        """
        least, most = self.entropies
        if most == least:
            return torch.zeros_like(entropy)
        return (entropy - least) / (most - least)

    def _own(self, params: tuple[Tensor, ...]) -> list[tuple[ActionHead, tuple[Tensor, ...]]]:
        """Each head with its own parameters."""
        counts = [1 if head.discrete else 2 for head in self.heads]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        return [
            (head, params[start : start + count])
            for head, start, count in zip(self.heads, starts, counts, strict=True)
        ]


def _head_name(name: str) -> str:
    """A legal module name: no dots, and no attribute of a ModuleDict such as keys."""
    name = name.replace(".", "-") or "-"
    return f"{name}-" if hasattr(nn.ModuleDict(), name) else name
