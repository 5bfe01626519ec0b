"""What lies between and inside the products of one step, in three kernels forward and three back.

No program waits for another: each owns some columns of the result for a tile of rows, and computes
anew what it needs of whole rows (norms of at most D numbers, from the second cache). Arguments are
those of `stepping`; `now` is the number of the first row of a step in [T * B, *].

The equations are those of `step.py`.

Legend: B batch, T time, N = T * B rows, D deter, Hd hidden, S stoch, K classes, G blocks, R rows of
a tile, C columns of a program.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

import triton
import triton.language as tl

from dreamer_async.fast.cuda.tiles import (
    activate,
    activate_rows,
    fetch,
    inverse_rms,
    matmul,
    onehot,
    put,
    sample_class,
    softmax,
    squares,
    tanh,
    through_gain,
    through_rows,
    unimix,
)


@triton.jit
def rows_of(batch, s):
    """Rows of this program and which of them there are: [R, 1] each."""
    rows = (tl.program_id(0) * s.rows + tl.arange(0, s.rows))[:, None]
    return rows, rows < batch


@triton.jit
def part_of(s):
    """The block of this program, its columns in it, and which of them there are: [1, C] each."""
    part = tl.program_id(2) * s.columns + tl.arange(0, s.columns)[None, :]
    return tl.program_id(1), part, part < s.block


@triton.jit
def latents_of(s):
    """Numbers of z [S * K] that this program has, and which of them there are: [1, C] each."""
    column = tl.arange(0, s.group * s.depth)[None, :]
    variable = tl.program_id(1) * s.group + column // s.depth
    label = column % s.depth
    return variable * s.classes + label, (variable < s.stoch) & (label < s.classes)


@triton.jit
def times(x, alive, w, step: tl.constexpr, real, depth: tl.constexpr, total, s):
    """total + x W: x points at the rows of x [R, 1], w at the columns of W [1, C].

    Numbers of a column are `step` apart; 1 multiplies by the transpose of a kernel's rows.
    """
    for k in range(0, depth, s.chunk):
        down, along = k + tl.arange(0, s.chunk)[:, None], k + tl.arange(0, s.chunk)[None, :]
        a = fetch(x + along, alive & (along < depth))
        total = matmul(a, fetch(w + down * step, (down < depth) & real), total)
    return total


# -- forward ---------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["now"])
def read_state(of_h, of_z, label, keep, w, kept, now, start: tl.constexpr, s):
    """x and u of one row: dynin0 of h in program 0 of the row, dynin1 of z in program 1.

    of_h [B, 2 Hd] is `both` times h; z is read by its classes, label [B, S], except at the start,
    where of_z [B, Hd] is its product.
    """
    row, which = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, s.width)[None, :]
    real = column < s.hidden
    if which == 0:
        y = fetch(of_h + (2 * row + 1) * s.hidden + column, real).to(tl.float32)
    elif start:
        y = fetch(of_z + row * s.hidden + column, real).to(tl.float32)
    else:
        y = _of_classes(label + row * s.stoch, w, column, real, s)
    place = (2 * (now + row) + which) * s.hidden + column
    bias = fetch(w.b + which * s.hidden + column, real).to(tl.float32)
    u = put(kept.u + place, y * tl.load(keep + now + row).to(tl.float32) + bias, real)
    gain = fetch(w.g + which * s.hidden + column, real)
    put(kept.x + place, activate_rows(u, gain, s.hidden, s.eps), real)


@triton.jit
def _of_classes(label, w, column, real, s):
    """z W1 of one row, whose z is one-hot: the sum of a row of W1 for each variable, [1, Hd]."""
    total = tl.zeros([1, s.width], tl.float32)
    for first in range(0, s.stoch, s.together):
        variable = first + tl.arange(0, s.together)[:, None]
        index = tl.load(label + variable, mask=variable < s.stoch, other=-1)
        known = (index >= 0) & (index < s.classes)
        of = w.w1 + (variable * s.classes + index) * s.hidden + column
        total += tl.sum(fetch(of, known & real).to(tl.float32), 0, keep_dims=True)
    return total


@triton.jit(do_not_specialize=["now"])
def read_hidden(deter, action, keep, w, kept, now, batch, s):
    """v, what dynhid makes of h, x and the action, in front of its norm."""
    rows, alive = rows_of(batch, s)
    g, part, real = part_of(s)
    row, column = now + rows, g * s.block + part
    total = tl.zeros([s.rows, s.columns], tl.float32)
    h, own = deter + row * s.deter + g * s.block, w.own + g * s.block * s.block + part
    total = times(h, alive, own, s.block, real, s.block, total, s)
    total *= fetch(keep + row, alive).to(tl.float32)
    x, common = kept.x + row * 2 * s.hidden, w.common + column
    total = times(x, alive, common, s.deter, real, 2 * s.hidden, total, s)
    place = row * s.deter + column
    total += fetch(action + place, alive & real).to(tl.float32)
    put(kept.v + place, total, alive & real)


@triton.jit(do_not_specialize=["now"])
def recur(deter, keep, w, kept, now, batch, s):
    """The GRU: q, its gates and h', the latter a step on in deter [T + 1, B, D]."""
    rows, alive = rows_of(batch, s)
    g, part, real = part_of(s)
    row, place = now + rows, g * s.block + part
    inverse = inverse_rms(_squares(kept.v + row * s.deter, alive, s.deter, s), s.deter, s.eps)
    reset = tl.zeros([s.rows, s.columns], tl.float32)
    cand = tl.zeros([s.rows, s.columns], tl.float32)
    update = tl.zeros([s.rows, s.columns], tl.float32)
    first = alive & (tl.program_id(2) == 0)
    for k in range(0, s.block, s.chunk):
        down, along = k + tl.arange(0, s.chunk)[:, None], k + tl.arange(0, s.chunk)[None, :]
        here, there = along < s.block, (down < s.block) & real
        gain = fetch(w.gain + g * s.block + along, here)
        of_q = row * s.deter + g * s.block + along
        q = activate(fetch(kept.v + of_q, alive & here), inverse, gain)
        q = put(kept.q + of_q, q, first & here)
        gates = w.gru + (g * s.block + down) * 3 * s.block + part
        reset = matmul(q, fetch(gates, there), reset)
        cand = matmul(q, fetch(gates + s.block, there), cand)
        update = matmul(q, fetch(gates + 2 * s.block, there), update)
    inside = alive & real
    gates = kept.gru + (now * s.blocks + g * batch + rows) * 3 * s.block + part
    bias = w.gru_bias + g * 3 * s.block + part
    reset = put(gates, reset + fetch(bias, real).to(tl.float32), inside)
    bias, gates = bias + s.block, gates + s.block
    cand = put(gates, cand + fetch(bias, real).to(tl.float32), inside)
    bias, gates = bias + s.block, gates + s.block
    update = put(gates, update + fetch(bias, real).to(tl.float32), inside)
    update = tl.sigmoid(update.to(tl.float32) - 1.0)
    cand = tanh(tl.sigmoid(reset.to(tl.float32)) * cand.to(tl.float32))
    old = fetch(deter + row * s.deter + place, inside).to(tl.float32)
    old *= fetch(keep + row, alive).to(tl.float32)
    put(deter + (row + batch) * s.deter + place, update * cand + (1.0 - update) * old, inside)


@triton.jit
def _squares(x, alive, width: tl.constexpr, s):
    """Sum of squares of each row, at whose begin x points: [R, 1]."""
    total = tl.zeros([s.rows, 1], tl.float32)
    for k in range(0, width, s.span):
        along = k + tl.arange(0, s.span)[None, :]
        total += squares(fetch(x + along, alive & (along < width)))
    return total


@triton.jit(do_not_specialize=["now"])
def read_observation(of_h, token, noise, w, stoch, logits, label, kept, now, batch, s):
    """o, p, logits and samples of some variables; of_h [B, 2 Hd] is `both` times h'."""
    rows, alive = rows_of(batch, s)
    row = now + rows
    first = alive & (tl.program_id(1) == 0)
    total = tl.zeros([s.rows, 1], tl.float32)
    for k in range(0, s.hidden, s.span):
        along = k + tl.arange(0, s.span)[None, :]
        here = along < s.hidden
        o = _given(of_h + rows * 2 * s.hidden, token + row * s.hidden, along, alive & here)
        total += squares(put(kept.o + row * s.hidden + along, o, first & here))
    inverse = inverse_rms(total, s.hidden, s.eps)
    latent, real = latents_of(s)
    y = tl.zeros([s.rows, s.group * s.depth], tl.float32)
    for k in range(0, s.hidden, s.chunk):
        down, along = k + tl.arange(0, s.chunk)[:, None], k + tl.arange(0, s.chunk)[None, :]
        here = along < s.hidden
        o = _given(of_h + rows * 2 * s.hidden, token + row * s.hidden, along, alive & here)
        gain = fetch(w.go + along, here)
        p = activate(o.to(w.wl.dtype.element_ty), inverse, gain)
        p = put(kept.p + row * s.hidden + along, p, first & here)
        of_p = fetch(w.wl + down * (s.stoch * s.classes) + latent, (down < s.hidden) & real)
        y = matmul(p, of_p, y)
    # Logits are of the compute type until they are stored, like a product's result.
    y = (y + fetch(w.bl + latent, real).to(tl.float32)).to(w.wl.dtype.element_ty).to(tl.float32)
    place = row * (s.stoch * s.classes) + latent
    put(logits + place, y, alive & real)
    probs = softmax(tl.reshape(y, [s.rows, s.group, s.depth]), s.classes)
    variable = tl.program_id(1) * s.group + tl.arange(0, s.group)[None, :]
    there = alive & (variable < s.stoch)
    chosen = tl.load(noise + row * s.stoch + variable, mask=there, other=0)
    index = sample_class(unimix(probs, s.unimix, s.classes), chosen, s.classes)
    tl.store(label + rows * s.stoch + variable, index.to(tl.int32), mask=there)
    z = tl.reshape(onehot(index, s.depth), [s.rows, s.group * s.depth])
    put(stoch + place, z, alive & real)


@triton.jit
def _given(of_h, token, along, inside):
    """What obs0 makes of h' and of the observation: [R, *] float32."""
    of_h, token = fetch(of_h + along, inside), fetch(token + along, inside)
    return of_h.to(tl.float32) + token.to(tl.float32)


# -- back ------------------------------------------------------------------------------------------


@triton.jit
def _norm_sums(x, gain, dy, alive, width: tl.constexpr, s):
    """What the gradient of a norm takes of whole rows, at whose begins x and dy point: [R, 1] each.

    What the norm multiplied by, and the mean that its gradient subtracts.
    """
    inverse = inverse_rms(_squares(x, alive, width, s), width, s.eps)
    total = tl.zeros([s.rows, 1], tl.float32)
    for k in range(0, width, s.span):
        along = k + tl.arange(0, s.span)[None, :]
        here = along < width
        inside = alive & here
        gains = fetch(gain + along, here)
        normed, dnormed = through_gain(
            fetch(x + along, inside), inverse, gains, fetch(dy + along, inside)
        )
        total += tl.sum(normed * dnormed, 1, keep_dims=True)
    return inverse, total / width


@triton.jit
def _norm_gradient(x, gain, dy, inverse, mean, along, here, alive):
    """The gradient in front of a norm, of some columns: [R, *] float32."""
    inside = alive & here
    gains = fetch(gain + along, here)
    normed, dnormed = through_gain(
        fetch(x + along, inside), inverse, gains, fetch(dy + along, inside)
    )
    return inverse * (dnormed - normed * mean)


@triton.jit(do_not_specialize=["now"])
def through_samples(keep, outside, logits, w, kept, d, low, now, batch, last: tl.constexpr, s):
    """Gradients of the logits of some variables, also as low [B, S * K] in the compute type.

    And of u of the step after, whose z these are: half 1 is in the way, half 0 takes a program
    more, which has no variables.
    """
    rows, alive = rows_of(batch, s)
    row, group = now + rows, tl.program_id(1)
    latent, real = latents_of(s)
    dz = tl.zeros([s.rows, s.group * s.depth], tl.float32)
    if not last:
        after, which = row + batch, (group * s.group < s.stoch).to(tl.int32)
        first = alive & ((group == 0) | (which == 0))
        half = (2 * after + which) * s.hidden
        u, dx, gain = kept.u + half, d.x + half, w.g + which * s.hidden
        inverse, mean = _norm_sums(u, gain, dx, alive, s.hidden, s)
        for k in range(0, s.hidden, s.chunk):
            down, along = k + tl.arange(0, s.chunk)[:, None], k + tl.arange(0, s.chunk)[None, :]
            here = along < s.hidden
            du = _norm_gradient(u, gain, dx, inverse, mean, along, here, alive)
            du = put(d.u + half + along, du, first & here)
            of_z = fetch(w.w1 + latent * s.hidden + down, (down < s.hidden) & real)
            dz = matmul(du, of_z, dz)
        dz *= fetch(keep + after, alive).to(tl.float32)
    place, inside = row * (s.stoch * s.classes) + latent, alive & real
    dz += fetch(outside.stoch + place, inside).to(tl.float32)
    shape: tl.constexpr = [s.rows, s.group, s.depth]
    probs = softmax(tl.reshape(fetch(logits + place, inside), shape), s.classes)
    dz = tl.reshape(dz, shape)
    through = (1.0 - s.unimix) * probs * (dz - tl.sum(probs * dz, 2, keep_dims=True))
    dl = fetch(outside.logits + place, inside) + tl.reshape(through, [s.rows, s.group * s.depth])
    put(d.logits + place, dl, inside)
    put(low + rows * (s.stoch * s.classes) + latent, dl, inside)


@triton.jit(do_not_specialize=["now"])
def through_gates(
    before, keep, outside, w, kept, d, stays, left, now, batch, last: tl.constexpr, s
):
    """Gradients of o and of the gates, and what of h's gradient passes through the GRU's memory.

    That goes to stays [B, D]; left is what the step after put there.
    """
    rows, alive = rows_of(batch, s)
    g, part, real = part_of(s)
    row, column, inside = now + rows, g * s.block + part, alive & real
    o, dp, both = kept.o + row * s.hidden, d.p + row * s.hidden, w.both + column * 2 * s.hidden
    inverse, mean = _norm_sums(o, w.go, dp, alive, s.hidden, s)
    first = alive & (g == 0) & (tl.program_id(2) == 0)
    dh = tl.zeros([s.rows, s.columns], tl.float32)
    for k in range(0, s.hidden, s.chunk):
        down, along = k + tl.arange(0, s.chunk)[:, None], k + tl.arange(0, s.chunk)[None, :]
        here = along < s.hidden
        do = _norm_gradient(o, w.go, dp, inverse, mean, along, here, alive)
        do = put(d.o + row * s.hidden + along, do, first & here)
        dh = matmul(do, fetch(both + down, (down < s.hidden) & real), dh)
    if not last:
        after = row + batch
        later = fetch(left + rows * s.deter + column, inside).to(tl.float32)
        du0, of_u0 = d.u + 2 * after * s.hidden, both + s.hidden
        later = times(du0, alive, of_u0, 1, real, s.hidden, later, s)
        dv, own = d.v + after * s.deter + g * s.block, w.own + column * s.block
        later = times(dv, alive, own, 1, real, s.block, later, s)
        dh += later * fetch(keep + after, alive).to(tl.float32)
    dh += fetch(outside.deter + row * s.deter + column, inside).to(tl.float32)
    old = fetch(before + row * s.deter + column, inside).to(tl.float32)
    old *= fetch(keep + row, alive).to(tl.float32)
    place = (now * s.blocks + g * batch + rows) * 3 * s.block + part
    reset = tl.sigmoid(fetch(kept.gru + place, inside).to(tl.float32))
    cand = fetch(kept.gru + place + s.block, inside).to(tl.float32)
    update = tl.sigmoid(fetch(kept.gru + place + 2 * s.block, inside).to(tl.float32) - 1.0)
    new = tanh(reset * cand)
    put(stays + rows * s.deter + column, dh * (1.0 - update), inside)
    dinner = dh * update * (1.0 - new * new)
    put(d.gru + place, dinner * cand * reset * (1.0 - reset), inside)
    put(d.gru + place + s.block, dinner * reset, inside)
    put(d.gru + place + 2 * s.block, dh * (new - old) * update * (1.0 - update), inside)


@triton.jit(do_not_specialize=["now"])
def through_hidden(w, kept, d, now, batch, s):
    """The gradient of v, of one row."""
    row, column = now + tl.program_id(0), tl.arange(0, s.across)[None, :]
    real = column < s.deter
    g, part = column // s.block, column % s.block
    dq = d.q + (now * s.blocks + g * batch + tl.program_id(0)) * s.block + part
    place, gain = row * s.deter + column, fetch(w.gain + column, real)
    dv = through_rows(fetch(kept.v + place, real), gain, fetch(dq, real), s.deter, s.eps)
    put(d.v + place, dv, real)


@triton.jit
def through_inputs(w, kept, d, s):
    """The gradient of u of the first step, one half of one row."""
    row, which = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, s.width)[None, :]
    real = column < s.hidden
    place = (2 * row + which) * s.hidden + column
    gain = fetch(w.g + which * s.hidden + column, real)
    u, dx = fetch(kept.u + place, real), fetch(d.x + place, real)
    put(d.u + place, through_rows(u, gain, dx, s.hidden, s.eps), real)
