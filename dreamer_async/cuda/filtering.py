"""Filtering of narrow models in two kernels: all steps forward, and all steps back.

Rows do not meet, so each program owns a tile of them and goes through time alone: nobody waits for
another program. It reads all kernels once a step, from the second cache, which is why models have to
be narrow. What a step keeps for its gradient is stored anyway, and what one part of it hands to the
next goes through that memory, behind a barrier of the program.

The equations are those of `RSSM.observe_step`, the names those of `agent.step`.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, G blocks, R rows of a tile.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreamer_async.agent.feature_maps import NORM_EPS
from dreamer_async.agent.step import Gradients, Kept, Latent, Weights
from dreamer_async.cuda.tiles import (
    LEAST,
    activate,
    activate_rows,
    fetch,
    inverse_rms,
    matmul,
    onehot,
    padded,
    put,
    sample_class,
    softmax,
    squares,
    tanh,
    through_gain,
    through_rows,
    unimix,
)

WARPS = 8
"""Of one program."""


class Sizes(NamedTuple):
    """Numbers that the kernels are compiled for."""

    deter: tl.constexpr
    hidden: tl.constexpr
    blocks: tl.constexpr
    block: tl.constexpr
    """D / G."""
    stoch: tl.constexpr
    classes: tl.constexpr
    unimix: tl.constexpr
    eps: tl.constexpr
    rows: tl.constexpr
    """R, as many as tensor cores take at least."""
    width: tl.constexpr
    """hidden, padded."""
    part: tl.constexpr
    """block, padded."""
    variables: tl.constexpr
    """stoch, padded."""
    depth: tl.constexpr
    """classes, padded."""


class Inputs(NamedTuple):
    """What the steps read, [T, B, *] contiguous."""

    action: Tensor
    """[D] what dynhid reads of the action."""
    token: Tensor
    """[Hd] what obs0 reads of the observation."""
    keep: Tensor
    """[1]."""
    noise: Tensor
    """[S] uniform numbers, or integers: the classes themselves."""


class Outputs(NamedTuple):
    """What filtering finds."""

    deter: Tensor
    """[T + 1, B, D], the first of which is given."""
    stoch: Tensor
    """[T, B, S * K]."""
    logits: Tensor
    """[T, B, S * K] float32."""


class Outside(NamedTuple):
    """The loss's gradient with respect to `Outputs`, from everything but filtering: [T, B, *]."""

    deter: Tensor
    stoch: Tensor
    logits: Tensor


def forward(
    w: Weights,
    latent: Latent,
    deter: Tensor,
    stoch: Tensor,
    action: Tensor,
    token: Tensor,
    keep: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Kept]:
    """All steps from the state [B, D], [B, S * K]: deter, stoch, logits, what to keep [T, B, *]."""
    w = Weights(*(x.contiguous() for x in w))
    given = Inputs(*(x.contiguous() for x in (action, token, keep, noise)))
    steps, batch, wide = given.action.shape
    of_h, of_z = deter @ w.both[:, w.g.shape[1] :], stoch @ w.w1  # [B, Hd] what dynin0, dynin1 give
    out = Outputs(
        deter.new_empty(steps + 1, batch, wide),
        stoch.new_empty(steps, batch, stoch.shape[1]),
        stoch.new_empty(steps, batch, stoch.shape[1], dtype=torch.float32),
    )
    out.deter[0].copy_(deter)
    kept = _memory(w, deter, steps)
    s = _sizes(w, latent)
    _forward[_grid(batch)](of_h, of_z, given, w, out, kept, steps, batch, s, num_warps=WARPS)
    return out.deter[1:], out.stoch, out.logits, kept


def backward(
    w: Weights,
    latent: Latent,
    h: Tensor,
    z: Tensor,
    keep: Tensor,
    logits: Tensor,
    kept: Kept,
    outside: Sequence[Tensor],
) -> Gradients:
    """Through all steps; h and z are the states before each, [T, B, *]."""
    w = Weights(*(x.contiguous() for x in w))
    before, keep, logits = (x.contiguous() for x in (h, keep, logits))
    steps, batch, _ = before.shape
    d = Gradients(*(torch.empty_like(x) for x in kept), torch.empty_like(logits))
    blocks, block, _ = w.own.shape
    d = d._replace(q=before.new_empty(steps, blocks, batch, block))
    memory = torch.empty_like(before[0])
    out = Outside(*(x.contiguous() for x in outside))
    s = _sizes(w, latent)
    _backward[_grid(batch)](
        before, keep, logits, w, kept, out, d, memory, steps, batch, s, num_warps=WARPS
    )
    return d


def _sizes(w: Weights, latent: Latent) -> Sizes:
    (blocks, block, _), hidden = w.own.shape, w.g.shape[1]
    sizes = (
        *(blocks * block, hidden, blocks, block, *latent, NORM_EPS),
        *(LEAST, padded(hidden), padded(block), padded(latent.stoch), padded(latent.classes, 1)),
    )
    return Sizes(*map(tl.constexpr, sizes))


def _grid(batch: int) -> tuple[int]:
    return (triton.cdiv(batch, LEAST),)


def _memory(w: Weights, like: Tensor, steps: int) -> Kept:
    """Room for what all steps keep."""
    (blocks, block, gates), hidden = w.gru.shape, w.g.shape[1]
    lead, deter = (steps, like.shape[0]), blocks * block
    return Kept(
        u=like.new_empty(*lead, 2, hidden),
        x=like.new_empty(*lead, 2 * hidden),
        v=like.new_empty(*lead, deter),
        q=like.new_empty(*lead, deter),
        gru=like.new_empty(steps, blocks, like.shape[0], gates),
        o=like.new_empty(*lead, hidden),
        p=like.new_empty(*lead, hidden),
    )


# -- forward ---------------------------------------------------------------------------------------


@triton.jit
def _forward(of_h, of_z, given, w, out, kept, steps, batch, s):
    """All steps of a tile of rows."""
    rows = (tl.program_id(0) * s.rows + tl.arange(0, s.rows))[:, None]
    alive = rows < batch
    column = tl.arange(0, s.width)[None, :]
    inside = alive & (column < s.hidden)
    of_h = fetch(of_h + rows * s.hidden + column, inside).to(tl.float32)
    of_z = fetch(of_z + rows * s.hidden + column, inside).to(tl.float32)
    for t in range(steps):
        row = t * batch + rows
        keep = fetch(given.keep + row, alive).to(tl.float32)  # [R, 1]
        x0 = _input(0, of_h, keep, w, kept, row, alive, s)
        x1 = _input(1, of_z, keep, w, kept, row, alive, s)
        inverse = _hidden(x0, x1, keep, given, w, out, kept, row, alive, s)
        tl.debug_barrier()  # v is there
        to_obs, of_h = _recur(inverse, keep, w, out, kept, t, batch, rows, alive, s)
        of_z = _posterior(to_obs, given, w, out, kept, row, alive, s)
        tl.debug_barrier()  # h is there


@triton.jit
def _input(which: tl.constexpr, product, keep, w, kept, row, alive, s):
    """dynin0 or dynin1, whose product is made: [R, Hd]."""
    column = tl.arange(0, s.width)[None, :]
    real = column < s.hidden
    bias = fetch(w.b + which * s.hidden + column, real).to(tl.float32)
    gain = fetch(w.g + which * s.hidden + column, real)
    place = (2 * row + which) * s.hidden + column
    u = put(kept.u + place, product * keep + bias, alive & real)
    return put(kept.x + place, activate_rows(u, gain, s.hidden, s.eps), alive & real)


@triton.jit
def _hidden(x0, x1, keep, given, w, out, kept, row, alive, s):
    """dynhid in front of its norm; returns what that multiplies by: [R, 1]."""
    total = tl.zeros([s.rows, 1], tl.float32)
    for g in range(s.blocks):
        h, inside = _part(out.deter, g, row, alive, s)
        v = matmul(h, _square(w.own, g, s), tl.zeros([s.rows, s.part], tl.float32)) * keep
        v += _part(given.action, g, row, alive, s)[0].to(tl.float32)
        v = matmul(x0, _common(w.common, 0, g, s), v)
        v = matmul(x1, _common(w.common, 1, g, s), v)
        column = g * s.block + tl.arange(0, s.part)[None, :]
        total += squares(put(kept.v + row * s.deter + column, v, inside))
    return inverse_rms(total, s.deter, s.eps)


@triton.jit
def _recur(inverse, keep, w, out, kept, t, batch, rows, alive, s):
    """The GRU: store h', return what obs0 and the next dynin0 make of it, each [R, Hd] float32."""
    row = t * batch + rows
    to_obs = tl.zeros([s.rows, s.width], tl.float32)
    of_h = tl.zeros([s.rows, s.width], tl.float32)
    for g in range(s.blocks):
        v, inside = _part(kept.v, g, row, alive, s)
        column = g * s.block + tl.arange(0, s.part)[None, :]
        q = activate(v, inverse, _gain(w.gain, g, s))
        q = put(kept.q + row * s.deter + column, q, inside)
        gates = ((t * s.blocks + g) * batch + rows) * 3 * s.block
        reset = _gate(0, q, w, kept, gates, g, inside, s)
        cand = _gate(1, q, w, kept, gates, g, inside, s)
        update = tl.sigmoid(_gate(2, q, w, kept, gates, g, inside, s) - 1.0)
        cand = tanh(tl.sigmoid(reset) * cand)
        old = _part(out.deter, g, row, alive, s)[0].to(tl.float32) * keep
        h = update * cand + (1.0 - update) * old
        h = put(out.deter + (row + batch) * s.deter + column, h, inside)
        to_obs = matmul(h, _both(w.both, 0, g, s), to_obs)
        of_h = matmul(h, _both(w.both, 1, g, s), of_h)
    return to_obs, of_h


@triton.jit
def _gate(which: tl.constexpr, q, w, kept, gates, g, inside, s):
    """One of reset, candidate, update in front of its sigmoid: [R, D/G] float32."""
    column = which * s.block + tl.arange(0, s.part)[None, :]
    real = tl.arange(0, s.part)[None, :] < s.block
    bias = fetch(w.gru_bias + g * 3 * s.block + column, real).to(tl.float32)
    gate = matmul(q, _gru(w.gru, which, g, s), tl.zeros([s.rows, s.part], tl.float32) + bias)
    return put(kept.gru + gates + column, gate, inside).to(tl.float32)


@triton.jit
def _posterior(to_obs, given, w, out, kept, row, alive, s):
    """Store o, p, logits and the sample; return what the next dynin1 makes of it: [R, Hd]."""
    column = tl.arange(0, s.width)[None, :]
    inside = alive & (column < s.hidden)
    place = row * s.hidden + column
    o = put(kept.o + place, to_obs + fetch(given.token + place, inside).to(tl.float32), inside)
    gain = fetch(w.go + column, column < s.hidden)
    p = put(kept.p + place, activate_rows(o, gain, s.hidden, s.eps), inside)
    latent, real = _latent(s)
    bias = fetch(w.bl + latent, real).to(tl.float32)
    # Logits are of the compute type until they are stored, like a product's result.
    logits = matmul(p, _wl(w.wl, s), tl.zeros([s.rows, bias.shape[1]], tl.float32) + bias)
    logits = logits.to(w.wl.dtype.element_ty).to(tl.float32)
    place = row * (s.stoch * s.classes) + latent
    put(out.logits + place, logits, alive & real)
    z = _sample(logits, given.noise, row, alive, s)
    z = put(out.stoch + place, z, alive & real)
    return matmul(z, _w1(w.w1, s), tl.zeros([s.rows, s.width], tl.float32))


@triton.jit
def _sample(logits, noise, row, alive, s):
    """One-hot samples of raw logits: [R, S * K] float32."""
    shape: tl.constexpr = [s.rows, s.variables, s.depth]
    probs = unimix(softmax(tl.reshape(logits, shape), s.classes), s.unimix, s.classes)
    variable = tl.arange(0, s.variables)[None, :]
    chosen = tl.load(noise + row * s.stoch + variable, mask=alive & (variable < s.stoch), other=0)
    index = sample_class(probs, chosen, s.classes)
    return tl.reshape(onehot(index, s.depth), [s.rows, s.variables * s.depth])


# -- backward --------------------------------------------------------------------------------------


@triton.jit
def _backward(before, keep, logits, w, kept, outside, d, memory, steps, batch, s):
    """All steps of a tile of rows, from the last to the first.

    What a step leaves to the one before is not yet cleared where that is no neighbour.
    """
    rows = (tl.program_id(0) * s.rows + tl.arange(0, s.rows))[:, None]
    alive = rows < batch
    neighbour = tl.zeros([s.rows, 1], tl.float32)
    du0 = tl.zeros([s.rows, s.width], tl.float32)
    du1 = tl.zeros([s.rows, s.width], tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        row = t * batch + rows
        do = _through_posterior(du1, neighbour, logits, w, kept, outside, d, row, alive, s)
        inverse = _inverse(kept.v, row, alive, s)
        kept_here = fetch(keep + row, alive).to(tl.float32)  # [R, 1]
        mean = _through_gru(
            do, du0, inverse, kept_here, neighbour, before, w, kept, outside, d, memory,
            t, steps, batch, rows, alive, s,
        )  # fmt: skip
        tl.debug_barrier()  # q's gradient is there
        dx0, dx1 = _through_hidden(inverse, mean, w, kept, d, t, batch, rows, alive, s)
        du0 = _through_input(0, dx0, w, kept, d, row, alive, s)
        du1 = _through_input(1, dx1, w, kept, d, row, alive, s)
        neighbour = kept_here
        tl.debug_barrier()  # v's gradient is there


@triton.jit
def _through_posterior(du1, neighbour, logits, w, kept, outside, d, row, alive, s):
    """Store the gradients of logits, p and o; return the last: [R, Hd]."""
    dtype: tl.constexpr = w.wl.dtype.element_ty
    latent, real = _latent(s)
    inside = alive & real
    place = row * (s.stoch * s.classes) + latent
    dz = matmul(du1.to(dtype), tl.trans(_w1(w.w1, s)), tl.zeros(place.shape, tl.float32))
    dz = fetch(outside.stoch + place, inside).to(tl.float32) + neighbour * dz
    through = _through_sample(fetch(logits + place, inside), dz, s)
    dl = put(d.logits + place, fetch(outside.logits + place, inside) + through, inside)
    column = tl.arange(0, s.width)[None, :]
    inside = alive & (column < s.hidden)
    place = row * s.hidden + column
    dp = matmul(dl.to(dtype), tl.trans(_wl(w.wl, s)), tl.zeros([s.rows, s.width], tl.float32))
    dp = put(d.p + place, dp, inside)
    gain = fetch(w.go + column, column < s.hidden)
    do = through_rows(fetch(kept.o + place, inside), gain, dp, s.hidden, s.eps)
    return put(d.o + place, do, inside)


@triton.jit
def _through_sample(logits, dz, s):
    """What samples pass on to their logits: [R, S * K] float32, padding 0."""
    shape: tl.constexpr = [s.rows, s.variables, s.depth]
    probs = softmax(tl.reshape(logits, shape), s.classes)
    dz = tl.reshape(dz, shape)
    through = (1.0 - s.unimix) * probs * (dz - tl.sum(probs * dz, 2, keep_dims=True))
    return tl.reshape(through, [s.rows, s.variables * s.depth])


@triton.jit
def _inverse(v, row, alive, s):
    """What dynhid's norm multiplied by: [R, 1]."""
    total = tl.zeros([s.rows, 1], tl.float32)
    for g in range(s.blocks):
        total += squares(_part(v, g, row, alive, s)[0])
    return inverse_rms(total, s.deter, s.eps)


@triton.jit
def _through_gru(
    do, du0, inverse, keep, neighbour, before, w, kept, outside, d, memory,
    t, steps, batch, rows, alive, s,
):  # fmt: skip
    """Store the gradients of gates and q, leave the memory's to the step before.

    Returns the mean that the norm of q subtracts: [R, 1].
    """
    dtype: tl.constexpr = w.wl.dtype.element_ty
    row = t * batch + rows
    later = alive & (t + 1 < steps)
    next_u0 = (neighbour * du0).to(dtype)
    total = tl.zeros([s.rows, 1], tl.float32)
    for g in range(s.blocks):
        dv = _part(d.v, g, row + batch, later, s)[0]
        left = _part(memory, g, rows, later, s)[0].to(tl.float32)
        dh = neighbour * matmul(dv, tl.trans(_square(w.own, g, s)), left)
        dh = matmul(do, tl.trans(_both(w.both, 0, g, s)), dh)
        dh = matmul(next_u0, tl.trans(_both(w.both, 1, g, s)), dh)
        dh += _part(outside.deter, g, row, alive, s)[0].to(tl.float32)
        old = _part(before, g, row, alive, s)[0].to(tl.float32) * keep
        gates = (t * s.blocks + g) * batch + rows
        dq = _through_gates(dh, old, w, kept, d, memory, gates, g, rows, alive, s)
        v, inside = _part(kept.v, g, row, alive, s)
        dq = put(d.q + gates * s.block + tl.arange(0, s.part)[None, :], dq, inside)
        normed, dnormed = through_gain(v, inverse, _gain(w.gain, g, s), dq)
        total += tl.sum(normed * dnormed, 1, keep_dims=True)
    return total / s.deter


@triton.jit
def _through_gates(dh, old, w, kept, d, memory, gates, g, rows, alive, s):
    """From the gradient of h' to those of the gates and, as far as kept, of h: dq [R, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    inside = alive & (part < s.block)
    place = gates * 3 * s.block + part
    reset = tl.sigmoid(fetch(kept.gru + place, inside).to(tl.float32))
    cand = fetch(kept.gru + place + s.block, inside).to(tl.float32)
    update = tl.sigmoid(fetch(kept.gru + place + 2 * s.block, inside).to(tl.float32) - 1.0)
    new = tanh(reset * cand)
    put(memory + rows * s.deter + g * s.block + part, dh * (1.0 - update), inside)
    dinner = dh * update * (1.0 - new * new)
    dreset = put(d.gru + place, dinner * cand * reset * (1.0 - reset), inside)
    dcand = put(d.gru + place + s.block, dinner * reset, inside)
    dupdate = dh * (new - old) * update * (1.0 - update)
    dupdate = put(d.gru + place + 2 * s.block, dupdate, inside)
    dq = matmul(dreset, tl.trans(_gru(w.gru, 0, g, s)), tl.zeros([s.rows, s.part], tl.float32))
    dq = matmul(dcand, tl.trans(_gru(w.gru, 1, g, s)), dq)
    return matmul(dupdate, tl.trans(_gru(w.gru, 2, g, s)), dq)


@triton.jit
def _through_hidden(inverse, mean, w, kept, d, t, batch, rows, alive, s):
    """Store the gradient of v, return those of x's two halves: each [R, Hd] float32."""
    row = t * batch + rows
    dx0 = tl.zeros([s.rows, s.width], tl.float32)
    dx1 = tl.zeros([s.rows, s.width], tl.float32)
    for g in range(s.blocks):
        v, inside = _part(kept.v, g, row, alive, s)
        part = tl.arange(0, s.part)[None, :]
        dq = fetch(d.q + ((t * s.blocks + g) * batch + rows) * s.block + part, inside)
        normed, dnormed = through_gain(v, inverse, _gain(w.gain, g, s), dq)
        dv = inverse * (dnormed - normed * mean)
        dv = put(d.v + row * s.deter + g * s.block + part, dv, inside)
        dx0 = matmul(dv, tl.trans(_common(w.common, 0, g, s)), dx0)
        dx1 = matmul(dv, tl.trans(_common(w.common, 1, g, s)), dx1)
    return dx0, dx1


@triton.jit
def _through_input(which: tl.constexpr, dx, w, kept, d, row, alive, s):
    """Store the gradients of one half of x and u; return the latter, rounded: [R, Hd] float32."""
    column = tl.arange(0, s.width)[None, :]
    inside = alive & (column < s.hidden)
    gain = fetch(w.g + which * s.hidden + column, column < s.hidden)
    place = (2 * row + which) * s.hidden + column
    dx = put(d.x + place, dx, inside)
    du = through_rows(fetch(kept.u + place, inside), gain, dx, s.hidden, s.eps)
    return put(d.u + place, du, inside).to(tl.float32)


# -- parts of tensors ------------------------------------------------------------------------------


@triton.jit
def _part(x, g, row, alive, s):
    """Block g of x [..., D] and where it is real: [R, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    inside = alive & (part < s.block)
    return fetch(x + row * s.deter + g * s.block + part, inside), inside


@triton.jit
def _latent(s):
    """Offsets of the numbers of z [S * K] in a padded tile, and which are real: [1, S * K]."""
    tile = tl.arange(0, s.variables * s.depth)[None, :]
    variable, label = tile // s.depth, tile % s.depth
    return variable * s.classes + label, (variable < s.stoch) & (label < s.classes)


@triton.jit
def _latent_rows(s):
    """The same down the rows of a kernel: [S * K, 1]."""
    tile = tl.arange(0, s.variables * s.depth)[:, None]
    variable, label = tile // s.depth, tile % s.depth
    return variable * s.classes + label, (variable < s.stoch) & (label < s.classes)


@triton.jit
def _gain(gain, g, s):
    """dynhid's gain of block g: [1, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    return fetch(gain + g * s.block + part, part < s.block)


@triton.jit
def _square(own, g, s):
    """own of block g: [D/G, D/G]."""
    part = tl.arange(0, s.part)
    inside = (part[:, None] < s.block) & (part[None, :] < s.block)
    return fetch(own + (g * s.block + part[:, None]) * s.block + part[None, :], inside)


@triton.jit
def _gru(gru, which: tl.constexpr, g, s):
    """One gate of block g: [D/G, D/G]."""
    part = tl.arange(0, s.part)
    inside = (part[:, None] < s.block) & (part[None, :] < s.block)
    row = (g * s.block + part[:, None]) * 3 * s.block
    return fetch(gru + row + which * s.block + part[None, :], inside)


@triton.jit
def _common(common, which: tl.constexpr, g, s):
    """What block g reads of one half of x: [Hd, D/G]."""
    hidden, part = tl.arange(0, s.width)[:, None], tl.arange(0, s.part)[None, :]
    inside = (hidden < s.hidden) & (part < s.block)
    return fetch(common + (which * s.hidden + hidden) * s.deter + g * s.block + part, inside)


@triton.jit
def _both(both, which: tl.constexpr, g, s):
    """What obs0 (0) or dynin0 (1) reads of block g of h: [D/G, Hd]."""
    part, hidden = tl.arange(0, s.part)[:, None], tl.arange(0, s.width)[None, :]
    inside = (part < s.block) & (hidden < s.hidden)
    return fetch(both + (g * s.block + part) * 2 * s.hidden + which * s.hidden + hidden, inside)


@triton.jit
def _wl(wl, s):
    """obslogit: [Hd, S * K]."""
    hidden = tl.arange(0, s.width)[:, None]
    latent, real = _latent(s)
    inside = (hidden < s.hidden) & real
    return fetch(wl + hidden * (s.stoch * s.classes) + latent, inside)


@triton.jit
def _w1(w1, s):
    """dynin1: [S * K, Hd]."""
    hidden = tl.arange(0, s.width)[None, :]
    latent, real = _latent_rows(s)
    return fetch(w1 + latent * s.hidden + hidden, real & (hidden < s.hidden))
