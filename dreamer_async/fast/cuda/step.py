"""One step of filtering and its gradient, written out.

The equations are those of `RSSM.observe_step`. The state is cleared where an episode begins (keep
is 0 there) behind the products, in kernels that are there anyway: keep (h W) is (keep h) W.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, G blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent.distributions import onehot, unimix
from dreamer_async.agent.nets import from_blocks, to_blocks
from dreamer_async.agent.ops import NORM_EPS
from dreamer_async.agent.rssm import RSSM
from dreamer_async.fast.cuda.ops import sample_class


class Weights(NamedTuple):
    """What the steps read: kernels [in, out] in the compute type, gains in float32."""

    w1: Tensor
    """[S * K, Hd] dynin1."""
    both: Tensor
    """[D, 2 Hd] what obs0 and dynin0 read of h, the latter in the step after."""
    b: Tensor
    """[2, Hd] the biases of dynin0 and dynin1."""
    g: Tensor
    """[2, Hd] their gains."""
    own: Tensor
    """[G, D/G, D/G] what each block of dynhid reads of its own part of h."""
    common: Tensor
    """[2 Hd, D] what all of them read of x."""
    gain: Tensor
    """[D] of dynhid."""
    gru: Tensor
    """[G, D/G, 3 D/G] dyngru."""
    gru_bias: Tensor
    """[G, 1, 3 D/G]."""
    go: Tensor
    """[Hd] the gain of obs0."""
    wl: Tensor
    """[Hd, S * K] obslogit."""
    bl: Tensor
    """[S * K]."""


class Latent(NamedTuple):
    """What the samples need to know."""

    stoch: int
    classes: int
    unimix: float


class State(NamedTuple):
    """What one step leaves to the next, [B, *]."""

    deter: Tensor
    """[D]."""
    stoch: Tensor
    """[S * K] one-hot."""
    next: Tensor
    """[Hd] what dynin0 makes of deter, without its bias."""


class Kept(NamedTuple):
    """What a step remembers for its gradient, [B, *] or [T, B, *]."""

    u: Tensor
    """[2, Hd] in front of the norms of x."""
    x: Tensor
    """[2 Hd] what dynhid reads of h and z."""
    v: Tensor
    """[D] in front of the norm of q."""
    q: Tensor
    """[D] what dyngru reads."""
    gru: Tensor
    """Its gates, [G, B, 3 D/G] or [T, G, B, 3 D/G]."""
    o: Tensor
    """[Hd] in front of the norm of p."""
    p: Tensor
    """[Hd] what obslogit reads."""


class Gradients(NamedTuple):
    """The loss's gradient with respect to what a step computed, in the same shapes but for q."""

    u: Tensor
    x: Tensor
    v: Tensor
    q: Tensor
    """[G, B, D/G] or [T, G, B, D/G]."""
    gru: Tensor
    o: Tensor
    p: Tensor
    logits: Tensor
    """[S * K] float32, with what came through the samples."""


class Carry(NamedTuple):
    """What a step's gradient leaves to the step before, not yet cleared where that is no neighbour.

    It is added up there, in a kernel that reads as much anyway.
    """

    deter: Tensor
    """[B, D] through the GRU's memory."""
    own: Tensor
    """[G, B, D/G] through dynhid."""
    u0: Tensor
    """[B, Hd] to dynin0, whose product is made together with that of obs0."""
    stoch: Tensor
    """[B, S * K] of z."""


def parameters(dyn: RSSM) -> tuple[Tensor, ...]:
    """What of the parameters the steps read; the parts of kernels are views."""
    (hidden, norm), (obs, obs_norm) = dyn.dynhid[0], dyn.obs_stack[0]
    block, width = hidden.kernel.shape[-1], dyn.config.hidden
    return (
        dyn.dynin0.kernel, dyn.dynin1.kernel, dyn.dynin0.bias, dyn.dynin1.bias,
        dyn.dynin0norm.scale, dyn.dynin1norm.scale,
        hidden.kernel[:, :block], hidden.kernel[:, block : block + 2 * width], norm.scale,
        dyn.dyngru.kernel, dyn.dyngru.bias,
        obs.kernel[: dyn.config.deter], obs_norm.scale, dyn.obslogit.kernel, dyn.obslogit.bias,
    )  # fmt: skip


def cast(parameters: tuple[Tensor, ...], dtype: torch.dtype) -> Weights:
    """Lay parameters out for the steps."""
    w0, w1, b0, b1, g0, g1, own, common, gain, gru, gru_bias, wo, go, wl, bl = parameters
    return Weights(
        w1=w1.to(dtype),
        both=torch.cat([wo, w0], 1).to(dtype),
        b=torch.stack([b0, b1]).to(dtype),
        g=torch.stack([g0, g1]),
        own=own.to(dtype),
        common=common.to(dtype).transpose(0, 1).flatten(1),
        gain=gain,
        gru=gru.to(dtype),
        gru_bias=gru_bias.to(dtype).view(gru.shape[0], 1, -1),
        go=go,
        wl=wl.to(dtype),
        bl=bl.to(dtype),
    )


def forward_step(
    w: Weights,
    latent: Latent,
    state: State,
    action: Tensor,
    token: Tensor,
    keep: Tensor,
    noise: Tensor,
) -> tuple[State, Tensor, Kept]:
    """From the state before to the one after, with its logits; keep is [B, 1]."""
    blocks, width = w.own.shape[0], w.g.shape[1]
    h, z, of_h = state
    u = torch.stack([of_h, z @ w.w1], 1) * keep[..., None] + w.b
    x = _activate(u, w.g).flatten(1)
    own = torch.bmm(to_blocks(h, blocks), w.own)
    v = _plus(action, x, w.common) + keep * from_blocks(own)
    q = _activate(v, w.gain)
    gru = _plus(w.gru_bias, to_blocks(q, blocks), w.gru)
    h = _gated(gru, h * keep)
    to_obs, of_h = (h @ w.both).split(width, -1)
    o = to_obs + token
    p = _activate(o, w.go)
    logits = torch.addmm(w.bl, p, w.wl).float()
    probs = unimix(logits.unflatten(-1, (latent.stoch, latent.classes)), latent.unimix)
    z = onehot(sample_class(probs, noise), latent.classes, h.dtype).flatten(-2)
    return State(h, z, of_h), logits, Kept(u, x, v, q, gru, o, p)


def backward_step(
    w: Weights,
    latent: Latent,
    before: Tensor,
    keep: Tensor,
    logits: Tensor,
    kept: Kept,
    outside: tuple[Tensor, Tensor, Tensor],
    carry: Carry,
    neighbour: Tensor,
) -> tuple[Carry, Gradients]:
    """Through one step; before [B, D] is the h that it began with.

    outside are the gradients of this step's deter, stoch and logits from everything but the step
    after, whose gradients are in carry; neighbour [B, 1] is the keep of that step.
    """
    blocks, dtype = w.own.shape[0], before.dtype
    ddeter, dstoch, dlogits = outside
    dl = _through_samples(logits, dlogits, dstoch + neighbour * carry.stoch, latent)
    dp = dl.to(dtype) @ w.wl.t()
    do = through_activation(kept.o, w.go, dp)[0].to(dtype)
    both = torch.cat([do, neighbour * carry.u0], -1)
    dh = ddeter + neighbour * (carry.deter + from_blocks(carry.own)) + both @ w.both.t()
    dgru, dmemory = _through_gates(kept.gru, before * keep, dh)
    dq = torch.bmm(dgru, w.gru.transpose(1, 2))
    dv = through_activation(kept.v, w.gain, from_blocks(dq))[0].to(dtype)
    dx = dv @ w.common.t()
    du = through_activation(kept.u, w.g, dx.view_as(kept.u))[0].to(dtype)
    down = torch.bmm(to_blocks(dv, blocks), w.own.transpose(1, 2))
    given = Gradients(du, dx, dv, dq, dgru, both[:, : do.shape[1]], dp, dl)
    return Carry(dmemory, down, du[:, 0], du[:, 1] @ w.w1.t()), given


def _plus(given: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """given + x W, of matrices or of blocks of them.

    On a GPU whatever reads the product adds what is given: the product would begin with a copy.
    """
    if x.is_cuda:
        return x @ kernel + given
    return (torch.addmm if x.ndim == 2 else torch.baddbmm)(given, x, kernel)


def _activate(x: Tensor, gain: Tensor) -> Tensor:
    """SiLU(norm(x) * gain) over the last axis."""
    normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + NORM_EPS)
    return F.silu((normed * gain).to(x.dtype))


def _gated(gru: Tensor, h: Tensor) -> Tensor:
    """The GRU's answer: gates [G, B, 3 D/G], h [B, D] -> [B, D]."""
    reset, cand, update = gru.chunk(3, -1)
    update = torch.sigmoid(update - 1.0)
    cand = torch.tanh(torch.sigmoid(reset) * cand)
    return from_blocks(update * cand + (1.0 - update) * to_blocks(h, gru.shape[0]))


def through_activation(x: Tensor, gain: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of SiLU(norm(x) * gain) in float32: that of x, and of the gain by row."""
    x, dy = x.float(), dy.float()
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
    normed = x * inverse
    scaled = normed * gain
    share = torch.sigmoid(scaled)
    dscaled = dy * share * (1.0 + scaled * (1.0 - share))
    dnormed = dscaled * gain
    dx = inverse * (dnormed - normed * (dnormed * normed).mean(-1, keepdim=True))
    return dx, dscaled * normed


def _through_gates(gru: Tensor, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient of h' [B, D] to the gates' [G, B, 3 D/G] and, as far as kept, h's."""
    blocks = gru.shape[0]
    reset, cand, update = gru.float().chunk(3, -1)
    old, dnew = to_blocks(h, blocks).float(), to_blocks(dh, blocks).float()
    reset, update = torch.sigmoid(reset), torch.sigmoid(update - 1.0)
    new = torch.tanh(reset * cand)
    dinner = dnew * update * (1.0 - new.square())
    dgates = [
        dinner * cand * reset * (1.0 - reset),
        dinner * reset,
        dnew * (new - old) * update * (1.0 - update),
    ]
    return torch.cat(dgates, -1).to(h.dtype), from_blocks(dnew * (1.0 - update)).to(h.dtype)


def _through_samples(logits: Tensor, dlogits: Tensor, dstoch: Tensor, latent: Latent) -> Tensor:
    """Add to dlogits what samples pass on to their probabilities: [B, S * K] float32."""
    shape = latent.stoch, latent.classes
    probs, dz = torch.softmax(logits.unflatten(-1, shape), -1), dstoch.float().unflatten(-1, shape)
    dot = (probs * dz).sum(-1, keepdim=True)
    through = (1.0 - latent.unimix) * probs * (dz - dot)
    return (dlogits.unflatten(-1, shape) + through).flatten(-2)
