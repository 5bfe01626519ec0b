"""Imagination laid out for few kernels, for GPUs: there time is made of how many there are.

What reads the same input is one product: of h' that is the prior, and what the model and the
actor read of it in the step after. Biases are added in float32 by whatever reads the product.
What the world model reads of a single action's classes is a table. Kernels are cast to the compute
type once an update.

The equations are those of `Agent.imagine_step`.

Legend: R rows, H horizon, D deter, S stoch, K classes, Hd hidden, U units, G blocks, A action,
P outputs of the actor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent, ImagineStep, roll_out
from dreamer_async.agent.distributions import onehot, unimix
from dreamer_async.agent.nets import Kernel, Linear, RMSNorm, from_blocks, to_blocks
from dreamer_async.agent.ops import NORM_EPS, rms_norm
from dreamer_async.agent.states import RSSMState, Trajectory
from dreamer_async.fast.cuda.ops import sample_class

Compiled = Callable[[Any], Any]
"""Turns a function into a compiled one."""


class Weights(NamedTuple):
    """Kernels [in, out] in the compute type."""

    of_h: Tensor
    """[D, Hd + U + Hd] dynin0, the actor's and the prior's first layer."""
    of_z: Tensor
    """[S * K, Hd + U] dynin1 and the actor's first layer."""
    actor: Tensor
    """[layers - 1, U, U] the actor's other layers."""
    head: Tensor
    """[U, P] all outputs of the actor."""
    action: Tensor
    """[A, D] what dynhid reads of a single action's classes; else [A, Hd] dynin2."""
    own: Tensor
    """[G, D/G, D/G] what each block of dynhid reads of its own part of h."""
    common: Tensor
    """[2 Hd, D] what all of them read; [3 Hd, D] where actions are no classes."""
    gru: Tensor
    """[G, D/G, 3 D/G]."""
    prior: Tensor
    """[layers - 1, Hd, Hd] the prior's other layers."""
    logits: Tensor
    """[Hd, S * K]."""


class Carry(NamedTuple):
    """What one step leaves to the next, [R, *]."""

    deter: Tensor
    """[D]."""
    stoch: Tensor
    """[S * K] one-hot."""
    of_h: Tensor
    """[Hd + U] what dynin0 and the actor make of deter, without biases."""


class Imagination(Protocol):
    """Something that rolls an agent out in its model."""

    def imagine(
        self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor, /
    ) -> Trajectory: ...

    def compiled(self, compiled: Compiled, /) -> Self: ...


class Stepwise:
    """Steps as somebody else takes them."""

    def __init__(self, step: ImagineStep) -> None:
        self._step = step

    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Trajectory:
        """Roll out H steps from [R, ...] states with noise [R, H, ...]."""
        return roll_out(self._step, start, action_noise, prior_noise)

    def compiled(self, compiled: Compiled) -> Self:
        """The same by a compiled step."""
        return type(self)(compiled(self._step))


def fits(agent: Agent) -> bool:
    """Whether the layers are those of the paper as far as it matters here."""
    return agent.model.dyn_layers == 1


class Rollout:
    """An agent's imagination; `pack` and `step` can be replaced by compiled ones."""

    def __init__(self, agent: Agent) -> None:
        assert fits(agent), agent.model.dyn_layers
        self._agent = agent
        self.pack: Callable[[], Weights] = self._pack
        self.step: Callable[..., tuple[Carry, Tensor]] = self._step

    def compiled(self, compiled: Compiled) -> Self:
        """The same from compiled functions."""
        rollout = type(self)(self._agent)
        rollout.pack, rollout.step = compiled(self._pack), compiled(self._step)
        return rollout

    @torch.no_grad()
    def imagine(self, start: RSSMState, action_noise: Tensor, prior_noise: Tensor) -> Trajectory:
        """Roll out H steps from [R, ...] states with noise [R, H, ...]."""
        w = self.pack()
        deter, stoch = start.deter, start.stoch.flatten(-2)
        carry = Carry(deter, stoch, deter @ w.of_h[:, : w.of_z.shape[1]])
        parts, actions = [deter, stoch], []
        for noise in zip(action_noise.unbind(1), prior_noise.unbind(1), strict=True):
            carry, action = self.step(w, carry, *noise)
            parts += carry[:2]
            actions.append(action)
        feat = torch.cat(parts, 1).unflatten(1, (len(actions) + 1, -1))
        return Trajectory(feat, torch.stack(actions, 1))

    def _pack(self) -> Weights:
        """Lay the agent's present parameters out."""
        dyn, pol, dtype = self._agent.dyn, self._agent.pol, self._agent.dtype
        (first, _), *actor = pol.mlp.stack
        (prior, _), *others = dyn.prior_stack
        of_h, of_z = first.kernel.split([dyn.config.deter, first.fan_in - dyn.config.deter])
        own, common = dyn.dynhid[0][0].parts()
        action = dyn.dynin2.kernel
        if pol.action.kind == "discrete":
            common, last = common.split([2 * dyn.config.hidden, dyn.config.hidden])
            action = _activate(action, dyn.dynin2, dyn.dynin2norm) @ last
        return Weights(
            of_h=torch.cat([dyn.dynin0.kernel, of_h, prior.kernel], 1).to(dtype),
            of_z=torch.cat([dyn.dynin1.kernel, of_z], 1).to(dtype),
            actor=_stack(actor).to(dtype),
            head=torch.cat([layer.kernel for layer in pol.linears()], 1).to(dtype),
            action=action.to(dtype),
            own=own.to(dtype).contiguous(),
            common=common.to(dtype),
            gru=dyn.dyngru.kernel.to(dtype),
            prior=_stack(others).to(dtype),
            logits=dyn.priorlogit.kernel.to(dtype),
        )

    def _step(
        self, w: Weights, carry: Carry, action_noise: Tensor, prior_noise: Tensor
    ) -> tuple[Carry, Tensor]:
        """Act, then let the world model answer; also return the action."""
        pol, hidden = self._agent.pol, self._agent.model.hidden
        widths = [hidden, w.of_z.shape[1] - hidden]
        h0, h_actor = carry.of_h.split(widths, -1)
        z1, z_actor = (carry.stoch @ w.of_z).split(widths, -1)
        x = self._first(h0, z1)
        first, *others = pol.mlp.stack
        a = _activate(h_actor.float() + z_actor, *first).to(x.dtype)
        for kernel, layer in zip(w.actor.unbind(), others, strict=True):
            a = _activate(a @ kernel, *layer).to(a.dtype)
        biases: list[Tensor] = [layer.bias for layer in pol.linears()]
        outs = ((a @ w.head).float() + torch.cat(biases)).split([len(bias) for bias in biases], -1)
        action = pol.sample(pol.params(outs), action_noise)
        deter = self._sequence_model(w, carry.deter, x, action)
        h0, p = (deter @ w.of_h).split([sum(widths), hidden], -1)
        return Carry(deter, self._prior(w, p, prior_noise), h0), action

    def _first(self, h0: Tensor, z1: Tensor) -> Tensor:
        """dynin0 and dynin1 side by side, of their products: one kernel for both."""
        dyn = self._agent.dyn
        bias = torch.stack([dyn.dynin0.bias, dyn.dynin1.bias])
        gain = torch.stack([dyn.dynin0norm.scale, dyn.dynin1norm.scale])
        x = torch.stack([h0, z1], 1) + bias  # [R, 2, Hd]
        x = F.silu(F.rms_norm(x, x.shape[-1:], None, NORM_EPS) * gain)
        return x.flatten(1).to(h0.dtype)

    def _sequence_model(self, w: Weights, h: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """h' = f(h, z, a); x [R, 2 Hd] is what the layers before dynhid made of h and z."""
        dyn, blocks = self._agent.dyn, self._agent.model.blocks
        hidden, norm = dyn.dynhid[0]
        own = from_blocks(torch.bmm(to_blocks(h, blocks), w.own)).float()
        if self._agent.pol.action.kind == "discrete":
            v = own + x @ w.common + w.action[action]
        else:
            a = self._agent.embed_action(action)
            a = _activate((a / a.abs().clamp(min=1.0)) @ w.action, dyn.dynin2, dyn.dynin2norm)
            v = own + torch.cat([x, a.to(x.dtype)], -1) @ w.common
        q = _activate(v, hidden, norm).to(h.dtype)
        bias = dyn.dyngru.bias.view(blocks, 1, -1)
        reset, cand, update = (torch.bmm(to_blocks(q, blocks), w.gru) + bias).chunk(3, -1)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        update = torch.sigmoid(update - 1.0)
        return from_blocks(update * cand + (1.0 - update) * to_blocks(h, blocks)).to(h.dtype)

    def _prior(self, w: Weights, p: Tensor, noise: Tensor) -> Tensor:
        """A sample of z [R, S * K], given what the first layer of the prior made of h."""
        dyn, config, dtype = self._agent.dyn, self._agent.model, p.dtype
        first, *others = dyn.prior_stack
        p = _activate(p, *first).to(dtype)
        for kernel, layer in zip(w.prior.unbind(), others, strict=True):
            p = _activate(p @ kernel, *layer).to(dtype)
        logits = (p @ w.logits).float() + dyn.priorlogit.bias
        probs = unimix(logits.unflatten(-1, (config.stoch, config.classes)), config.unimix)
        return onehot(sample_class(probs, noise), config.classes, dtype).flatten(-2)


def _activate(product: Tensor, layer: Kernel, norm: RMSNorm) -> Tensor:
    """SiLU(norm(product + bias)) in float32."""
    return F.silu(rms_norm(product + layer.bias, norm.scale))


def _stack(layers: list[tuple[Linear, RMSNorm]]) -> Tensor:
    """The kernels of equally wide layers: [layers, in, out]."""
    kernels: list[Tensor] = [layer.kernel for layer, _ in layers]
    return torch.stack(kernels) if kernels else torch.empty(0)
