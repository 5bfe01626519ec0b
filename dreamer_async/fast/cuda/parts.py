"""Parts of the model's tensors, as the tiles that kernels read; s are the `Sizes` of `filtering`.

Legend: D deter, Hd hidden, S stoch, K classes, G blocks, R rows of a tile.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

import triton
import triton.language as tl

from dreamer_async.fast.cuda.tiles import fetch


@triton.jit
def part_of(x, g, row, alive, s):
    """Block g of x [..., D] and where it is real: [R, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    inside = alive & (part < s.block)
    return fetch(x + row * s.deter + g * s.block + part, inside), inside


@triton.jit
def latent_columns(s):
    """Offsets of the numbers of z [S * K] in a padded tile, and which are real: [1, S * K]."""
    tile = tl.arange(0, s.variables * s.depth)[None, :]
    variable, label = tile // s.depth, tile % s.depth
    return variable * s.classes + label, (variable < s.stoch) & (label < s.classes)


@triton.jit
def latent_rows(s):
    """The same down the rows of a kernel: [S * K, 1]."""
    tile = tl.arange(0, s.variables * s.depth)[:, None]
    variable, label = tile // s.depth, tile % s.depth
    return variable * s.classes + label, (variable < s.stoch) & (label < s.classes)


@triton.jit
def gain_of(gain, g, s):
    """dynhid's gain of block g: [1, D/G]."""
    part = tl.arange(0, s.part)[None, :]
    return fetch(gain + g * s.block + part, part < s.block)


@triton.jit
def own_of(own, g, s):
    """own of block g: [D/G, D/G]."""
    part = tl.arange(0, s.part)
    inside = (part[:, None] < s.block) & (part[None, :] < s.block)
    return fetch(own + (g * s.block + part[:, None]) * s.block + part[None, :], inside)


@triton.jit
def gate_of(gru, which: tl.constexpr, g, s):
    """One gate of block g: [D/G, D/G]."""
    part = tl.arange(0, s.part)
    inside = (part[:, None] < s.block) & (part[None, :] < s.block)
    row = (g * s.block + part[:, None]) * 3 * s.block
    return fetch(gru + row + which * s.block + part[None, :], inside)


@triton.jit
def common_of(common, which: tl.constexpr, g, s):
    """What block g reads of one half of x: [Hd, D/G]."""
    hidden, part = tl.arange(0, s.width)[:, None], tl.arange(0, s.part)[None, :]
    inside = (hidden < s.hidden) & (part < s.block)
    return fetch(common + (which * s.hidden + hidden) * s.deter + g * s.block + part, inside)


@triton.jit
def both_of(both, which: tl.constexpr, g, s):
    """What obs0 (0) or dynin0 (1) reads of block g of h: [D/G, Hd]."""
    part, hidden = tl.arange(0, s.part)[:, None], tl.arange(0, s.width)[None, :]
    inside = (part < s.block) & (hidden < s.hidden)
    return fetch(both + (g * s.block + part) * 2 * s.hidden + which * s.hidden + hidden, inside)


@triton.jit
def obslogit(wl, s):
    """obslogit: [Hd, S * K]."""
    hidden = tl.arange(0, s.width)[:, None]
    latent, real = latent_columns(s)
    inside = (hidden < s.hidden) & real
    return fetch(wl + hidden * (s.stoch * s.classes) + latent, inside)


@triton.jit
def dynin1(w1, s):
    """dynin1: [S * K, Hd]."""
    hidden = tl.arange(0, s.width)[None, :]
    latent, real = latent_rows(s)
    return fetch(w1 + latent * s.hidden + hidden, real & (hidden < s.hidden))
