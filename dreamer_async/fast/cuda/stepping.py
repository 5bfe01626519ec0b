"""Filtering of wide models, one step after the other, in five kernels forward and six back.

Where all of a step's weights are too many for one processor (`filtering`), all processors have to
share each product. So a step stays a chain of kernels, of which none waits for itself: products
whose inputs are cheap to compute anew are made inside of what reads or writes them
(`step_kernels`), and the others are left to cuBLAS. Nothing is copied: each kernel reads and
writes its place in the sequence.

The equations are those of `RSSM.observe_step`, the names those of `step`.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, G blocks, R rows of a tile.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreamer_async.agent.ops import NORM_EPS
from dreamer_async.fast.cuda import step_kernels as kernels
from dreamer_async.fast.cuda.filtering import Inputs, Outputs, Outside, kept_memory
from dreamer_async.fast.cuda.step import Gradients, Kept, Latent, Weights
from dreamer_async.fast.cuda.tiles import LEAST, padded

COLUMNS = 32
"""Of D that one program computes: 64 programs at size12m, 256 at size200m."""
CHUNK = 64
"""Numbers of a row that are multiplied at once."""
SPAN = 256
"""Numbers of a row that are squared at once."""
TOGETHER = 8
"""Variables whose rows of a kernel are added up at once."""
STAGES = 3
"""How many parts of a kernel are under way at once."""


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
    columns: tl.constexpr
    chunk: tl.constexpr
    span: tl.constexpr
    together: tl.constexpr
    depth: tl.constexpr
    """classes, padded."""
    group: tl.constexpr
    """Variables of a program, so many that tensor cores take their classes."""
    width: tl.constexpr
    """hidden, padded."""
    across: tl.constexpr
    """deter, padded."""


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
    assert steps * batch * 3 * wide < 2**31, (steps, batch, wide)  # offsets are int32
    s, out = _sizes(w, latent), _outputs(given, deter, stoch)
    kept, label = kept_memory(w, deter, steps), noise.new_empty(noise.shape[1:], dtype=torch.int32)
    of_h, of_z = deter @ w.both, stoch @ w.w1
    tiles = triton.cdiv(batch, LEAST)
    parts, groups = (tiles, *_parts(s)), (tiles, _groups(s))
    for t in range(steps):
        now = t * batch
        _launch(
            kernels.read_state, (batch, 2), of_h, of_z, label, given.keep, w, kept, now,
            tl.constexpr(t == 0), s,
        )  # fmt: skip
        _launch(
            kernels.read_hidden, parts, out.deter, given.action, given.keep, w, kept, now, batch, s
        )
        _launch(kernels.recur, parts, out.deter, given.keep, w, kept, now, batch, s)
        torch.mm(out.deter[t + 1], w.both, out=of_h)
        _launch(
            kernels.read_observation, groups, of_h, given.token, given.noise, w, out.stoch,
            out.logits, label, kept, now, batch, s,
        )  # fmt: skip
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
    kept, given = Kept(*(x.contiguous() for x in kept)), Outside(*(x.contiguous() for x in outside))
    steps, batch, _ = before.shape
    s, d = _sizes(w, latent), Gradients(*map(torch.empty_like, (*kept, logits)))
    d = d._replace(q=before.new_empty(steps, s.blocks.value, batch, s.block.value))
    low, memory = z.new_empty(logits.shape[1:]), before.new_empty(2, *before.shape[1:])
    tiles = triton.cdiv(batch, LEAST)
    for t in reversed(range(steps)):
        now, last = t * batch, tl.constexpr(t + 1 == steps)
        groups = tiles, _groups(s) + (t + 1 < steps)  # one more for half 0 of u
        _launch(
            kernels.through_samples, groups, keep, given, logits, w, kept, d, low, now, batch, last,
            s,
        )  # fmt: skip
        torch.mm(low, w.wl.t(), out=d.p[t])
        _launch(
            kernels.through_gates, (tiles, *_parts(s)), before, keep, given, w, kept, d,
            memory[t % 2], memory[(t + 1) % 2], now, batch, last, s,
        )  # fmt: skip
        torch.bmm(d.gru[t], w.gru.transpose(1, 2), out=d.q[t])
        _launch(kernels.through_hidden, (batch,), w, kept, d, now, batch, s)
        torch.mm(d.v[t], w.common.t(), out=d.x[t])
    _launch(kernels.through_inputs, (batch, 2), w, kept, d, s)
    return d


def warps_of(kernel: str) -> int:
    """Of a program; what holds a whole row of D numbers has more."""
    return 8 if kernel == "through_hidden" else 4


def _launch(kernel: Any, grid: tuple[int, ...], *inputs: Any) -> None:
    kernel[grid](*inputs, num_warps=warps_of(kernel.__name__), num_stages=STAGES)


def _outputs(given: Inputs, deter: Tensor, stoch: Tensor) -> Outputs:
    """Room for what filtering finds, and the state that it begins with."""
    (steps, batch, wide), latents = given.action.shape, stoch.shape[1]
    out = Outputs(
        deter.new_empty(steps + 1, batch, wide),
        stoch.new_empty(steps, batch, latents),
        stoch.new_empty(steps, batch, latents, dtype=torch.float32),
    )
    out.deter[0].copy_(deter)
    return out


def _parts(s: Sizes) -> tuple[int, int]:
    """Programs for D: blocks, and parts of each."""
    return s.blocks.value, triton.cdiv(s.block.value, s.columns.value)


def _groups(s: Sizes) -> int:
    """Programs for the variables of z."""
    return triton.cdiv(s.stoch.value, s.group.value)


def _sizes(w: Weights, latent: Latent) -> Sizes:
    (blocks, block, _), hidden = w.own.shape, w.g.shape[1]
    depth = padded(latent.classes, 1)
    sizes = (
        *(blocks * block, hidden, blocks, block, *latent, NORM_EPS),
        *(LEAST, COLUMNS, CHUNK, SPAN, TOGETHER, depth, max(1, LEAST // depth)),
        *(padded(hidden), padded(blocks * block)),
    )
    return Sizes(*map(tl.constexpr, sizes))
