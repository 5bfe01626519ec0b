"""Imagination as one native function for all steps (`src/imagination.cpp`).

All heads read each state while it is in the cache, so that nobody reads the states again before
the gradients do.

Legend: R rows, H horizon, F feat, C columns of several actions, P outputs of the actor, M bins.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.backend import Imagine
from dreamer_async.agent.nets import dense_layers
from dreamer_async.agent.ops import Dense
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Imagined, RSSMState, Trajectory
from dreamer_async.fast.native import library
from dreamer_async.fast.native.actor import (
    PackedActions,
    PackedActor,
    layers_of,
    split_action_noise,
)
from dreamer_async.fast.native.core import core_of, fits, weights_of
from dreamer_async.fast.native.dense import Saved, Stack, dense_stack, split_outputs
from dreamer_async.fast.native.library import address, floats, split_noise
from dreamer_async.fast.native.structs import Head, Imagination


class Read(NamedTuple):
    """What the heads say of all states, as far as the losses want it; no gradients."""

    policy: Saved
    """[R, H+1, P] outputs of the actor."""
    value: Saved
    """[R, H+1, M] logits of the critic."""
    mean_value: Tensor
    """[R, H+1]."""
    reward: Tensor
    """[R, H+1] mean."""
    cont: Tensor
    """[R, H+1] logits."""
    slow: Tensor
    """[R, H+1] mean of the slow critic."""


def imagination(agent: Agent, otherwise: Imagine) -> Imagine:
    """Imagination in float32; other types and layers are left to somebody else."""
    fitting = agent.dtype == torch.float32 and fits(agent.model)
    return partial(imagine, agent) if fitting else otherwise


def imagine(agent: Agent, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Imagined:
    """`Agent.imagine`, whose heads only lack their gradients."""
    with torch.no_grad():
        trajectory, read = _roll_out(agent, start.feat, action_noise, prior_noise)
    feat, pol = trajectory.feat, agent.pol
    logits = dense_stack(feat, layers_of(agent.val), read.value)
    outs = split_outputs(dense_stack(feat, layers_of(pol), read.policy), pol.outputs())
    cont = torch.sigmoid(read.cont)
    return Imagined(
        trajectory, pol.params(outs), logits, read.mean_value, read.reward, cont, read.slow
    )


def _roll_out(
    agent: Agent, start: Tensor, action_noise: Tensor, prior_noise: Tensor
) -> tuple[Trajectory, Read]:
    """Roll out H steps from start [R, F], and read the states; no gradients."""
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
    library.functions().imagine_forward(
        ctypes.byref(core),
        ctypes.byref(policy.structure),
        ctypes.byref(
            Imagination(
                actions.structure, prior.address, prior.count, horizon,
                *map(address, (drawn, given, uniform, chosen, feat, action)),
                ctypes.addressof(heads), len(heads),
            )
        ),
        rows, library.threads(feat.numel()),
    )  # fmt: skip
    if spec.kind == "discrete":
        return Trajectory(feat, action[..., 0].long()), read
    return Trajectory(feat, action), read


class _Reader:
    """A head in memory, and where its results go: its outputs, or their mean over bins."""

    def __init__(
        self,
        layers: list[Dense],
        y: Tensor | None,
        bins: Tensor | None = None,
        mean: Tensor | None = None,
        saved: Saved | None = None,
    ) -> None:
        self.stack = Stack(layers, saved)
        self.structure = Head(
            self.stack.address, self.stack.count, floats(y), floats(bins), floats(mean)
        )


def _readers(agent: Agent, feat: Tensor) -> tuple[list[_Reader], Read]:
    """All heads, the actor first, and where they put what they say of feat [R, H+1, F]."""
    lead = feat.shape[:2]
    policy, value = layers_of(agent.pol), layers_of(agent.val)
    read = Read(
        Saved.room(lead, policy, feat), Saved.room(lead, value, feat),
        *(feat.new_empty(lead) for _ in range(4)),
    )  # fmt: skip
    return [
        _Reader(policy, read.policy.y, saved=read.policy),
        _Reader(value, read.value.y, agent.val.bins, read.mean_value, read.value),
        _Reader(layers_of(agent.rew), None, agent.rew.bins, read.reward),
        _Reader(layers_of(agent.con), read.cont),
        _Reader(layers_of(agent.slowval), None, agent.slowval.bins, read.slow),
    ], read


def _prior_layers(dyn: RSSM) -> list[Dense]:
    return [*dense_layers(dyn.prior_stack), dyn.priorlogit.layer()]
