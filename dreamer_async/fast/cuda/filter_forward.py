"""The kernel that filters a tile of rows, all steps: arguments are those of `filtering`.

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
    unimix,
)


@triton.jit
def filter_forward(of_h, of_z, given, w, out, kept, steps, batch, s):
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
        h, inside = part_of(out.deter, g, row, alive, s)
        v = matmul(h, own_of(w.own, g, s), tl.zeros([s.rows, s.part], tl.float32)) * keep
        v += part_of(given.action, g, row, alive, s)[0].to(tl.float32)
        v = matmul(x0, common_of(w.common, 0, g, s), v)
        v = matmul(x1, common_of(w.common, 1, g, s), v)
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
        v, inside = part_of(kept.v, g, row, alive, s)
        column = g * s.block + tl.arange(0, s.part)[None, :]
        q = activate(v, inverse, gain_of(w.gain, g, s))
        q = put(kept.q + row * s.deter + column, q, inside)
        gates = ((t * s.blocks + g) * batch + rows) * 3 * s.block
        reset = _gate(0, q, w, kept, gates, g, inside, s)
        cand = _gate(1, q, w, kept, gates, g, inside, s)
        update = tl.sigmoid(_gate(2, q, w, kept, gates, g, inside, s) - 1.0)
        cand = tanh(tl.sigmoid(reset) * cand)
        old = part_of(out.deter, g, row, alive, s)[0].to(tl.float32) * keep
        h = update * cand + (1.0 - update) * old
        h = put(out.deter + (row + batch) * s.deter + column, h, inside)
        to_obs = matmul(h, both_of(w.both, 0, g, s), to_obs)
        of_h = matmul(h, both_of(w.both, 1, g, s), of_h)
    return to_obs, of_h


@triton.jit
def _gate(which: tl.constexpr, q, w, kept, gates, g, inside, s):
    """One of reset, candidate, update in front of its sigmoid: [R, D/G] float32."""
    column = which * s.block + tl.arange(0, s.part)[None, :]
    real = tl.arange(0, s.part)[None, :] < s.block
    bias = fetch(w.gru_bias + g * 3 * s.block + column, real).to(tl.float32)
    gate = matmul(q, gate_of(w.gru, which, g, s), tl.zeros([s.rows, s.part], tl.float32) + bias)
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
    latent, real = latent_columns(s)
    bias = fetch(w.bl + latent, real).to(tl.float32)
    # Logits are of the compute type until they are stored, like a product's result.
    logits = matmul(p, obslogit(w.wl, s), tl.zeros([s.rows, bias.shape[1]], tl.float32) + bias)
    logits = logits.to(w.wl.dtype.element_ty).to(tl.float32)
    place = row * (s.stoch * s.classes) + latent
    put(out.logits + place, logits, alive & real)
    z = _sample(logits, given.noise, row, alive, s)
    z = put(out.stoch + place, z, alive & real)
    return matmul(z, dynin1(w.w1, s), tl.zeros([s.rows, s.width], tl.float32))


@triton.jit
def _sample(logits, noise, row, alive, s):
    """One-hot samples of raw logits: [R, S * K] float32."""
    shape: tl.constexpr = [s.rows, s.variables, s.depth]
    probs = unimix(softmax(tl.reshape(logits, shape), s.classes), s.unimix, s.classes)
    variable = tl.arange(0, s.variables)[None, :]
    chosen = tl.load(noise + row * s.stoch + variable, mask=alive & (variable < s.stoch), other=0)
    index = sample_class(probs, chosen, s.classes)
    return tl.reshape(onehot(index, s.depth), [s.rows, s.variables * s.depth])
