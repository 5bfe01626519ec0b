"""Filtering as one native function for all steps, and one for the backward pass (`filtering.cpp`).

Only what depends on the state before is done step by step. The rest (projections of tokens and
actions, the gradients of all kernels) are large products over all steps.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, E embed, A action, G blocks.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent.backend import Observe
from dreamer_async.agent.rssm import RSSM
from dreamer_async.agent.states import Observed, RSSMState
from dreamer_async.fast.native import library
from dreamer_async.fast.native.core import (
    Weights,
    action_layers,
    add_transposes,
    core_of,
    fits,
    token_layer,
    weights_of,
)
from dreamer_async.fast.native.dense import dense_stack
from dreamer_async.fast.native.library import address, floats, is_float32, split_noise
from dreamer_async.fast.native.structs import Activations, Core, Filtering, FilteringGradients


def filtering(dyn: RSSM, otherwise: Observe) -> Observe:
    """Filtering of float32; other types and layers are left to somebody else."""
    if not fits(dyn.config):
        return otherwise

    def observe(
        state: RSSMState, embed: Tensor, action: Tensor, reset: Tensor, noise: Tensor
    ) -> Observed:
        inputs = state, embed, action, reset, noise
        return _observe(dyn, *inputs) if is_float32(*state, embed, action) else otherwise(*inputs)

    return observe


def _observe(
    dyn: RSSM, state: RSSMState, embed: Tensor, action: Tensor, reset: Tensor, noise: Tensor
) -> Observed:
    """Filter [B, T, *] from the state [B, ...]."""
    keep = 1.0 - reset.float()
    token = dense_stack(embed, [token_layer(dyn)])  # [B, T, Hd]
    action = _action_part(dyn, action * keep[..., None])
    start = state.deter.detach(), state.stoch.detach().flatten(-2)
    inputs = (*start, action, token, keep, noise)
    deter, stoch, logits = _Observe.apply(dyn, torch.is_grad_enabled(), *inputs, *weights_of(dyn))
    shape = (dyn.config.stoch, dyn.config.classes)
    return Observed(RSSMState(deter, stoch.unflatten(-1, shape)), logits.unflatten(-1, shape))


def _action_part(dyn: RSSM, action: Tensor) -> Tensor:
    """What dynhid reads of embedded actions, with its bias: [..., A] -> [..., D]."""
    return dense_stack(action / action.detach().abs().clamp(min=1.0), action_layers(dyn))


class _Observe(torch.autograd.Function):
    """Filtering with its gradient: deter [B, T, D], stoch and logits [B, T, S * K]."""

    @staticmethod
    def forward(
        ctx: Any,
        dyn: RSSM,
        saves: bool,
        deter0: Tensor,
        stoch0: Tensor,
        action: Tensor,
        token: Tensor,
        keep: Tensor,
        noise: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        config, (batch, steps) = dyn.config, keep.shape
        latent = config.stoch * config.classes
        uniform, chosen = split_noise(noise)
        inputs = [x.contiguous() for x in (deter0, stoch0, action, token, keep)]
        deter, stoch, logits = (
            deter0.new_empty(batch, steps, width) for width in (config.deter, latent, latent)
        )
        core, held = core_of(dyn, Weights(*weights))
        filtering = Filtering(
            steps, *map(floats, inputs), floats(uniform),
            address(chosen),
            floats(deter), floats(stoch), floats(logits),
        )  # fmt: skip
        saved = _room(dyn, batch * steps, deter0) if saves else {}
        pieces = min(batch, torch.get_num_threads())
        library.functions().observe_forward(
            ctypes.byref(core), ctypes.byref(filtering),
            ctypes.byref(Activations(*map(floats, saved.values()), saved=bool(saved))),
            batch, pieces, pieces,
        )  # fmt: skip
        if saves:
            ctx.save_for_backward(*inputs, deter, stoch, logits, *saved.values(), *weights)
            ctx.core, ctx.held, ctx.pieces = Core.from_buffer_copy(core), held, pieces
        return deter, stoch, logits

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        deter0, stoch0, action, token, keep, deter, stoch, logits = tensors[:8]
        saved = dict(zip(_SAVED, tensors[8:16], strict=True))
        w = Weights(*tensors[16:])
        batch, steps = keep.shape
        held = add_transposes(ctx.core, Weights(*(x.detach() for x in w)))
        filtering = Filtering(
            steps, *map(floats, (deter0, stoch0, action, token, keep)), None, None,
            *map(floats, (deter, stoch, logits)),
        )  # fmt: skip
        given = {name: torch.empty_like(saved[name]) for name in ("u0", "u1", "v", "gru", "o")}
        given["l"] = torch.empty_like(logits).flatten(0, 1)
        gains = {name: getattr(w, name).new_zeros(ctx.pieces, *getattr(w, name).shape)
                 for name in ("g0", "g1", "gain", "go")}  # fmt: skip
        outside = [x.contiguous() for x in grad_outputs]
        library.functions().observe_backward(
            ctypes.byref(ctx.core), ctypes.byref(filtering),
            ctypes.byref(Activations(*map(floats, saved.values()), saved=True)),
            ctypes.byref(
                FilteringGradients(*map(floats, [*outside, *given.values(), *gains.values()]))
            ),
            batch, ctx.pieces, ctx.pieces,
        )  # fmt: skip
        del held
        dgains = {name: x.sum(0) for name, x in gains.items()}
        before = [_before(*pair, keep) for pair in ((deter0, deter), (stoch0, stoch))]
        grads = _kernel_gradients(w, before, deter.flatten(0, 1), saved, given, dgains)
        return (
            None, None, None, None, given["v"].view_as(action), given["o"].view_as(token),
            None, None, *grads,
        )  # fmt: skip


_SAVED: tuple[str, ...] = ("u0", "u1", "x", "v", "q", "gru", "o", "p")


def _room(dyn: RSSM, rows: int, like: Tensor) -> dict[str, Tensor]:
    """Memory for what the backward pass reads, [B * T, *] each, in the order of the structure."""
    hidden, deter = dyn.config.hidden, dyn.config.deter
    widths = (hidden, hidden, 2 * hidden, deter, deter, 3 * deter, hidden, hidden)
    return {name: like.new_empty(rows, width) for name, width in zip(_SAVED, widths, strict=True)}


def _before(first: Tensor, then: Tensor, keep: Tensor) -> Tensor:
    """States in front of each step, cleared at resets: [B, *], [B, T, *] -> [B * T, *]."""
    before = torch.cat([first[:, None], then[:, :-1]], 1)
    return (before * keep[..., None]).flatten(0, 1)


def _kernel_gradients(
    w: Weights,
    before: list[Tensor],
    deter: Tensor,
    saved: dict[str, Tensor],
    given: dict[str, Tensor],
    gains: dict[str, Tensor],
) -> Weights:
    """Sums over all rows and steps: what a layer read times the gradient of what it gave."""
    blocks, block, _ = w.own.shape
    h, z = before
    split = lambda x: x.unflatten(-1, (blocks, -1)).permute(1, 2, 0)  # noqa: E731  [G, F/G, N]
    of_blocks = lambda x: x.unflatten(-1, (blocks, -1)).transpose(0, 1)  # noqa: E731  [G, N, F/G]
    common = saved["x"].t() @ given["v"]  # [2 Hd, D]
    return Weights(
        w0=h.t() @ given["u0"],
        b0=given["u0"].sum(0),
        g0=gains["g0"],
        w1=z.t() @ given["u1"],
        b1=given["u1"].sum(0),
        g1=gains["g1"],
        own=torch.bmm(split(h), of_blocks(given["v"])),
        common=common.unflatten(-1, (blocks, block)).transpose(0, 1),
        gain=gains["gain"],
        gru=torch.bmm(split(saved["q"]), of_blocks(given["gru"])),
        gru_bias=given["gru"].sum(0),
        wo=deter.t() @ given["o"],
        go=gains["go"],
        wl=saved["p"].t() @ given["l"],
        bl=given["l"].sum(0),
    )
