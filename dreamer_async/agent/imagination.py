"""Imagination as one native function for all steps (`kernels/imagination.cpp`).

All heads read each state while it is in the cache, so that nobody reads the states again before
the gradients do.

Legend: R rows, H horizon, F feat, C columns of several actions, P outputs of the actor, M bins.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.dense import Dense, Kept, Stack
from dreamer_async.agent.kernels import floats
from dreamer_async.agent.nets import dense_layers
from dreamer_async.agent.packed_actor import PackedActions, PackedActor, split_action_noise
from dreamer_async.agent.recurrent import address, core_of, split_noise, weights_of
from dreamer_async.agent.structs import Head, Imagination

if TYPE_CHECKING:
    from dreamer_async.agent.actor_critic import Agent
    from dreamer_async.agent.rssm import RSSM


class Read(NamedTuple):
    """What the heads say of all states, as far as the losses want it; no gradients."""

    policy: Kept
    """[R, H+1, P] outputs of the actor."""
    value: Kept
    """[R, H+1, M] logits of the critic."""
    mean_value: Tensor
    """[R, H+1]."""
    reward: Tensor
    """[R, H+1] mean."""
    cont: Tensor
    """[R, H+1] logits."""
    slow: Tensor
    """[R, H+1] mean of the slow critic."""


def imagine(
    agent: Agent, start: Tensor, action_noise: Tensor, prior_noise: Tensor
) -> tuple[Tensor, Tensor, Read]:
    """Roll out H steps from start [R, F]: feat [R, H+1, F], action [R, H, *]; no gradients."""
    rows, horizon = action_noise.shape[:2]
    dyn, spec = agent.dyn, agent.pol.action
    feat = start.new_empty(rows, horizon + 1, start.shape[-1])
    feat[:, 0] = start
    action = start.new_empty(rows, horizon, spec.columns)
    drawn, given = split_action_noise(spec, action_noise)
    uniform, chosen = split_noise(prior_noise)
    core, _held = core_of(dyn, weights_of(dyn))
    readers, read = _readers(agent, feat)
    heads = (Head * len(readers))(*(reader.structure for reader in readers))
    policy = PackedActor(agent.pol, readers[0].stack)
    actions, prior = PackedActions(dyn, spec), Stack(_prior_layers(dyn))
    kernels.library().imagine_forward(
        ctypes.byref(core),
        ctypes.byref(policy.structure),
        ctypes.byref(
            Imagination(
                actions.structure, prior.address, prior.count, horizon,
                *map(address, (drawn, given, uniform, chosen, feat, action)),
                ctypes.addressof(heads), len(heads),
            )
        ),
        rows, kernels.threads(feat.numel()),
    )  # fmt: skip
    return feat, action[..., 0].long() if spec.kind == "discrete" else action, read


class _Reader:
    """A head in memory, and where its results go: its outputs, or their mean over bins."""

    def __init__(
        self,
        layers: list[Dense],
        y: Tensor | None,
        bins: Tensor | None = None,
        mean: Tensor | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.stack = Stack(layers, kept)
        self.structure = Head(
            self.stack.address, self.stack.count, floats(y), floats(bins), floats(mean)
        )


def _readers(agent: Agent, feat: Tensor) -> tuple[list[_Reader], Read]:
    """All heads, the actor first, and where they put what they say of feat [R, H+1, F]."""
    lead = feat.shape[:2]
    policy, value = agent.pol.layers(), agent.val.layers()
    read = Read(
        Kept.room(lead, policy, feat), Kept.room(lead, value, feat),
        *(feat.new_empty(lead) for _ in range(4)),
    )  # fmt: skip
    return [
        _Reader(policy, read.policy.y, kept=read.policy),
        _Reader(value, read.value.y, agent.val.bins, read.mean_value, read.value),
        _Reader(agent.rew.layers(), None, agent.rew.bins, read.reward),
        _Reader(agent.con.layers(), read.cont),
        _Reader(agent.slowval.layers(), None, agent.slowval.bins, read.slow),
    ], read


def _prior_layers(dyn: RSSM) -> list[Dense]:
    return [*dense_layers(dyn.prior_stack), Dense(dyn.priorlogit.kernel, dyn.priorlogit.bias, None)]
