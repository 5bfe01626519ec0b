"""Filtering whose gradient is written out, for every device that has no native functions.

Only what depends on the state before is done step by step, forward and back. The rest (the
projections of tokens and actions, the gradients of all kernels) are large products over all steps,
and parameters are cast to the compute type once instead of once a step.

The equations are those of `RSSM.observe_step`.

Legend: B batch, T time, N = T * B rows, D deter, Hd hidden, S stoch, K classes, E embed, A action,
G blocks. Inside, time comes first, so that one step of anything is one piece of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent.backend import Observe
from dreamer_async.agent.nets import to_blocks
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Observed, RSSMState
from dreamer_async.fast.cuda.step import (
    Carry,
    Gradients,
    Kept,
    Latent,
    State,
    Weights,
    backward_step,
    cast,
    forward_step,
    parameters,
    through_activation,
)

Filtered = tuple[Tensor, Tensor, Tensor, Kept]
"""deter, stoch, logits and what the gradient needs, [T, B, *]."""


class Loops(NamedTuple):
    """All steps in one call: what `forward_steps` and `backward_steps` do with a single one."""

    forward: Callable[..., Filtered]
    backward: Callable[..., Gradients]


class Steps(NamedTuple):
    """The functions that filtering is made of, each of which can be compiled."""

    forward: Callable[..., tuple[State, Tensor, Kept]]
    backward: Callable[..., tuple[Carry, Gradients]]
    weights: Callable[..., tuple[Tensor, ...]]
    prepare: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    cast: Callable[..., Weights]
    loops: Loops | None = None
    """Does all steps, forward and back, instead of the first two."""

    def in_time(self) -> Loops:
        """All steps, one after the other unless something does them at once."""
        return self.loops or Loops(
            partial(forward_steps, self.forward), partial(backward_steps, self.backward)
        )


def fits(dyn: RSSM) -> bool:
    """Whether the layers are those of the paper, one in each place."""
    return dyn.config.dyn_layers == 1 and dyn.config.posterior_layers == 1


def filtering(dyn: RSSM, steps: Steps | None = None) -> Observe:
    """Filtering by these steps, by default as they are written here.

    A model of other layers filters as it is written itself.
    """
    return partial(observe, dyn, steps or EAGER) if fits(dyn) else dyn.observe


def observe(
    dyn: RSSM,
    steps: Steps,
    state: RSSMState,
    embed: Tensor,
    action: Tensor,
    reset: Tensor,
    noise: Tensor,
) -> Observed:
    """Filter [B, T, *] from the state [B, ...]."""
    inputs = steps.prepare(dyn, embed, action, reset, noise)
    latent = Latent(dyn.config.stoch, dyn.config.classes, dyn.config.unimix)
    start = state.deter.detach(), state.stoch.detach().flatten(-2)
    deter, stoch, logits = _Scan.apply(steps, latent, *start, *inputs, *parameters(dyn))
    shape = latent.stoch, latent.classes
    stoch, logits = (x.transpose(0, 1).unflatten(-1, shape) for x in (stoch, logits))
    return Observed(RSSMState(deter.transpose(0, 1), stoch), logits)


def prepare(
    dyn: RSSM, embed: Tensor, action: Tensor, reset: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What steps read besides the state, [B, T, *] -> [T, B, *]: actions, tokens, keep, noise."""
    embed, action, reset, noise = (x.transpose(0, 1) for x in (embed, action, reset, noise))
    keep = 1.0 - reset.to(embed.dtype)[..., None]  # [T, B, 1]
    token, action = _token_part(dyn, embed), _action_part(dyn, action * keep)
    return action, token, keep.contiguous(), noise.contiguous()


def _token_part(dyn: RSSM, embed: Tensor) -> Tensor:
    """What obs0 reads of the observations, with its bias: [T, B, E] -> [T, B, Hd]."""
    layer = dyn.obs_stack[0][0]
    return _linear(embed, layer.kernel[dyn.config.deter :], layer.bias)


def _action_part(dyn: RSSM, action: Tensor) -> Tensor:
    """What dynhid reads of embedded actions, with its bias: [T, B, A] -> [T, B, D]."""
    action = action / action.detach().abs().clamp(min=1.0)
    hidden = dyn.dynhid[0][0]
    kernel = hidden.kernel[:, -dyn.config.hidden :].transpose(0, 1).flatten(1)  # [Hd, D]
    return _linear(F.silu(dyn.dynin2norm(dyn.dynin2(action))), kernel, hidden.bias)


def _linear(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    y = torch.addmm(bias.to(x.dtype), x.flatten(0, 1), kernel.to(x.dtype))
    return y.unflatten(0, x.shape[:2])


def weight_gradients(
    w: Weights, h: Tensor, z: Tensor, after: Tensor, keep: Tensor, kept: Kept, d: Gradients
) -> tuple[Tensor, ...]:
    """Gradients of `parameters`: what a layer read times the gradient of its output, all rows.

    h and z are the states before each step, after is h after it: all [T, B, *].
    """
    blocks, block, _ = w.own.shape
    h, z = _rows(h * keep), _rows(z * keep)
    du0, du1 = _rows(d.u).unbind(1)
    dg0, dg1 = _gain(kept.u, w.g, d.x.view_as(kept.u))
    dgru = d.gru.transpose(0, 1).flatten(1, 2)  # [G, N, 3 D/G]
    dv, do, dl = map(_rows, (d.v, d.o, d.logits))
    common = (_rows(kept.x).t() @ dv).float()  # [2 Hd, D]
    dq = d.q.transpose(1, 2).flatten(2)  # [T, B, D]
    return (
        (h.t() @ du0).float(),
        (z.t() @ du1).float(),
        _bias(du0),
        _bias(du1),
        dg0,
        dg1,
        torch.bmm(_columns(h, blocks), to_blocks(dv, blocks)).float(),
        common.unflatten(-1, (blocks, block)).transpose(0, 1),
        _gain(kept.v, w.gain, dq),
        torch.bmm(_columns(_rows(kept.q), blocks), dgru).float(),
        dgru.sum(1, dtype=torch.float32).flatten(),
        (_rows(after).t() @ do).float(),
        _gain(kept.o, w.go, d.p),
        (_rows(kept.p).t() @ dl.to(do.dtype)).float(),
        _bias(dl),
    )


def _rows(x: Tensor) -> Tensor:
    """[T, B, *] -> [N, *]."""
    return x.flatten(0, 1)


def _columns(x: Tensor, blocks: int) -> Tensor:
    """[N, F] -> [G, F/G, N]."""
    return to_blocks(x, blocks).transpose(1, 2)


def _bias(d: Tensor) -> Tensor:
    return d.sum(0, dtype=torch.float32)


def _gain(x: Tensor, gain: Tensor, dy: Tensor) -> Tensor:
    """[T, B, *] -> [*]."""
    return through_activation(x, gain, dy)[1].sum((0, 1))


def forward_steps(
    step: Callable[..., tuple[State, Tensor, Kept]],
    w: Weights,
    latent: Latent,
    deter: Tensor,
    stoch: Tensor,
    action: Tensor,
    token: Tensor,
    keep: Tensor,
    noise: Tensor,
) -> Filtered:
    """Filter [T, B, *] from the state [B, D], [B, S * K], one step after the other."""
    state = State(deter, stoch, (deter @ w.both).split(w.g.shape[1], -1)[1])
    done: list[tuple[State, Tensor, Kept]] = []
    inputs = zip(*(x.unbind(0) for x in (action, token, keep, noise)), strict=True)
    for inputs_t in inputs:
        done.append(step(w, latent, state, *inputs_t))
        state = done[-1][0]
    states, logits, kept = zip(*done, strict=True)
    deters, stochs = (torch.stack(x) for x in (*zip(*states, strict=True),)[:2])
    return deters, stochs, torch.stack(logits), _stack(kept)


def backward_steps(
    step: Callable[..., tuple[Carry, Gradients]],
    w: Weights,
    latent: Latent,
    h: Tensor,
    z: Tensor,
    keep: Tensor,
    logits: Tensor,
    kept: Kept,
    outside: Sequence[Tensor],
) -> Gradients:
    """Go back from the last step to the first; h and z are the states before each step.

    outside are the gradients of deter, stoch and logits from everything but filtering.
    """
    given: list[Gradients] = []
    carry, neighbour = _no_carry(w, h[0], z[0]), keep[0]
    for t in reversed(range(keep.shape[0])):
        outside_t = tuple(x[t] for x in outside)
        kept_t = Kept(*(x[t] for x in kept))
        carry, given_t = step(
            w, latent, h[t], keep[t], logits[t], kept_t, outside_t, carry, neighbour
        )
        given.append(given_t)
        neighbour = keep[t]
    return _stack(given[::-1])


EAGER = Steps(forward_step, backward_step, weight_gradients, prepare, cast)


class _Scan(torch.autograd.Function):
    """All steps with their gradient: deter [T, B, D], stoch and logits [T, B, S * K]."""

    @staticmethod
    def forward(
        ctx: Any,
        steps: Steps,
        latent: Latent,
        deter: Tensor,
        stoch: Tensor,
        action: Tensor,
        token: Tensor,
        keep: Tensor,
        noise: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w = steps.cast(parameters, token.dtype)
        inputs = deter, stoch, action, token, keep, noise
        *results, kept = steps.in_time().forward(w, latent, *inputs)
        ctx.save_for_backward(deter, stoch, keep, *results, *kept, *w)
        ctx.steps, ctx.latent = steps, latent
        return results[0], results[1], results[2]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        deter0, stoch0, keep, deter, stoch, logits, *rest = ctx.saved_tensors
        count = len(Kept._fields)
        kept, w, steps = Kept(*rest[:count]), Weights(*rest[count:]), ctx.steps
        h, z = (torch.cat([a[None], b[:-1]]) for a, b in ((deter0, deter), (stoch0, stoch)))
        every: Gradients = steps.in_time().backward(
            w, ctx.latent, h, z, keep, logits, kept, grad_outputs
        )
        grads = steps.weights(w, h, z, deter, keep, kept, every)
        return (None, None, None, None, every.v, every.o, None, None, *grads)


def _no_carry(w: Weights, deter: Tensor, stoch: Tensor) -> Carry:
    """What the last step gets, laid out in memory like what the others get."""
    blocks, block, _ = w.own.shape
    return Carry(
        torch.zeros_like(deter),
        deter.new_zeros(blocks, deter.shape[0], block),
        deter.new_zeros(deter.shape[0], *w.g.shape)[:, 0],
        torch.zeros_like(stoch),
    )


def _stack(steps: Sequence[Any]) -> Any:
    """The same, with all steps in each: [B, *] -> [T, B, *]."""
    return type(steps[0])(*(torch.stack(parts) for parts in zip(*steps, strict=True)))
