"""The kernel that goes back through all steps: arguments are those of `filtering`.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, G blocks, R rows of a tile.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

import triton
import triton.language as tl

from dreamer_async.fast.cuda.parts import (
    both_of,
    common_of,
    dynin1,
    gain_of,
    gate_of,
    latent_columns,
    obslogit,
    own_of,
    part_of,
)
from dreamer_async.fast.cuda.tiles import (
    fetch,
    inverse_rms,
    matmul,
    put,
    softmax,
    squares,
    tanh,
    through_gain,
    through_rows,
)


@triton.jit
def filter_backward(before, keep, logits, w, kept, outside, d, memory, steps, batch, s):
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
    latent, real = latent_columns(s)
    inside = alive & real
    place = row * (s.stoch * s.classes) + latent
    dz = matmul(du1.to(dtype), tl.trans(dynin1(w.w1, s)), tl.zeros(place.shape, tl.float32))
    dz = fetch(outside.stoch + place, inside).to(tl.float32) + neighbour * dz
    through = _through_sample(fetch(logits + place, inside), dz, s)
    dl = put(d.logits + place, fetch(outside.logits + place, inside) + through, inside)
    column = tl.arange(0, s.width)[None, :]
    inside = alive & (column < s.hidden)
    place = row * s.hidden + column
    dp = matmul(dl.to(dtype), tl.trans(obslogit(w.wl, s)), tl.zeros([s.rows, s.width], tl.float32))
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
        total += squares(part_of(v, g, row, alive, s)[0])
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
    later = (alive & (t + 1 < steps)) != 0  # interpreted, the latter is a number of Python
    next_u0 = (neighbour * du0).to(dtype)
    total = tl.zeros([s.rows, 1], tl.float32)
    for g in range(s.blocks):
        dv = part_of(d.v, g, row + batch, later, s)[0]
        left = part_of(memory, g, (t + 1) % 2 * batch + rows, later, s)[0].to(tl.float32)
        dh = neighbour * matmul(dv, tl.trans(own_of(w.own, g, s)), left)
        dh = matmul(do, tl.trans(both_of(w.both, 0, g, s)), dh)
        dh = matmul(next_u0, tl.trans(both_of(w.both, 1, g, s)), dh)
        dh += part_of(outside.deter, g, row, alive, s)[0].to(tl.float32)
        old = part_of(before, g, row, alive, s)[0].to(tl.float32) * keep
        gates = (t * s.blocks + g) * batch + rows
        stays = t % 2 * batch + rows
        dq = _through_gates(dh, old, w, kept, d, memory, gates, g, stays, alive, s)
        v, inside = part_of(kept.v, g, row, alive, s)
        dq = put(d.q + gates * s.block + tl.arange(0, s.part)[None, :], dq, inside)
        normed, dnormed = through_gain(v, inverse, gain_of(w.gain, g, s), dq)
        total += tl.sum(normed * dnormed, 1, keep_dims=True)
    return total / s.deter


@triton.jit
def _through_gates(dh, old, w, kept, d, memory, gates, g, stays, alive, s):
    """From the gradient of h' to those of the gates and, as far as kept, of h: dq [R, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    inside = alive & (part < s.block)
    place = gates * 3 * s.block + part
    reset = tl.sigmoid(fetch(kept.gru + place, inside).to(tl.float32))
    cand = fetch(kept.gru + place + s.block, inside).to(tl.float32)
    update = tl.sigmoid(fetch(kept.gru + place + 2 * s.block, inside).to(tl.float32) - 1.0)
    new = tanh(reset * cand)
    put(memory + stays * s.deter + g * s.block + part, dh * (1.0 - update), inside)
    dinner = dh * update * (1.0 - new * new)
    dreset = put(d.gru + place, dinner * cand * reset * (1.0 - reset), inside)
    dcand = put(d.gru + place + s.block, dinner * reset, inside)
    dupdate = dh * (new - old) * update * (1.0 - update)
    dupdate = put(d.gru + place + 2 * s.block, dupdate, inside)
    dq = matmul(dreset, tl.trans(gate_of(w.gru, 0, g, s)), tl.zeros([s.rows, s.part], tl.float32))
    dq = matmul(dcand, tl.trans(gate_of(w.gru, 1, g, s)), dq)
    return matmul(dupdate, tl.trans(gate_of(w.gru, 2, g, s)), dq)


@triton.jit
def _through_hidden(inverse, mean, w, kept, d, t, batch, rows, alive, s):
    """Store the gradient of v, return those of x's two halves: each [R, Hd] float32."""
    row = t * batch + rows
    dx0 = tl.zeros([s.rows, s.width], tl.float32)
    dx1 = tl.zeros([s.rows, s.width], tl.float32)
    for g in range(s.blocks):
        v, inside = part_of(kept.v, g, row, alive, s)
        part = tl.arange(0, s.part)[None, :]
        dq = fetch(d.q + ((t * s.blocks + g) * batch + rows) * s.block + part, inside)
        normed, dnormed = through_gain(v, inverse, gain_of(w.gain, g, s), dq)
        dv = inverse * (dnormed - normed * mean)
        dv = put(d.v + row * s.deter + g * s.block + part, dv, inside)
        dx0 = matmul(dv, tl.trans(common_of(w.common, 0, g, s)), dx0)
        dx1 = matmul(dv, tl.trans(common_of(w.common, 1, g, s)), dx1)
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
