"""Filtering of narrow models in two kernels: all steps forward, and all steps back.

Rows do not meet, so each program owns a tile of them and goes through time alone: nobody waits for
another program. It reads all weights once a step, from the second cache, which is why models have
to be narrow. What a step keeps for its gradient is stored anyway, and what one part of it hands to
the next goes through that memory, behind a barrier of the program.

The equations are those of `RSSM.observe_step`, the names those of `step`.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, G blocks, R rows of a tile.
"""
# pyright: reportMissingImports=false, reportMissingParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreamer_async.agent.ops import NORM_EPS
from dreamer_async.fast.cuda.filter_backward import filter_backward
from dreamer_async.fast.cuda.filter_forward import filter_forward
from dreamer_async.fast.cuda.step import Gradients, Kept, Latent, Weights
from dreamer_async.fast.cuda.tiles import LEAST, padded

WARPS = 8
"""Of one program."""
STAGES = {torch.bfloat16: 2, torch.float32: 1}
"""How many parts of a kernel are under way at once: what fits 99 KB of shared memory."""


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
    assert steps * batch * 3 * wide < 2**31, (steps, batch, wide)  # offsets are int32
    of_h, of_z = deter @ w.both[:, w.g.shape[1] :], stoch @ w.w1  # [B, Hd] what dynin0, dynin1 give
    out = Outputs(
        deter.new_empty(steps + 1, batch, wide),
        stoch.new_empty(steps, batch, stoch.shape[1]),
        stoch.new_empty(steps, batch, stoch.shape[1], dtype=torch.float32),
    )
    out.deter[0].copy_(deter)
    kept = kept_memory(w, deter, steps)
    _launch(filter_forward, deter, of_h, of_z, given, w, out, kept, steps, batch, _sizes(w, latent))
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
    blocks, block, _ = w.own.shape
    d = Gradients(*map(torch.empty_like, (*kept, logits)))
    d = d._replace(q=before.new_empty(steps, blocks, batch, block))
    memory = before.new_empty(2, batch, blocks * block)  # of this step and of the one after
    out = Outside(*(x.contiguous() for x in outside))
    inputs = before, keep, logits, w, kept, out, d, memory
    _launch(filter_backward, before, *inputs, steps, batch, _sizes(w, latent))
    return d


def kept_memory(w: Weights, like: Tensor, steps: int) -> Kept:
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


def _launch(kernel: Any, like: Tensor, *inputs: Any) -> None:
    """One program for every tile of the rows of `like` [..., B, *]."""
    tiles = triton.cdiv(like.shape[-2], LEAST)
    kernel[(tiles,)](*inputs, num_warps=WARPS, num_stages=STAGES[like.dtype])


def _sizes(w: Weights, latent: Latent) -> Sizes:
    (blocks, block, _), hidden = w.own.shape, w.g.shape[1]
    sizes = (
        *(blocks * block, hidden, blocks, block, *latent, NORM_EPS),
        *(LEAST, padded(hidden), padded(block), padded(latent.stoch), padded(latent.classes, 1)),
    )
    return Sizes(*map(tl.constexpr, sizes))
