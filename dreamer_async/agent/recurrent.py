"""The recurrent state-space model as native functions: its parameters, and filtering.

Filtering (`kernels/filtering.cpp`) is one call for all steps, and its backward pass another: only
what depends on the state before is done step by step. The rest (projections of tokens and actions,
the gradients of all kernels) are large products over all steps.

Legend: B batch, T time, D deter, Hd hidden, S stoch, K classes, E embed, G blocks.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.dense import Dense, dense_stack
from dreamer_async.agent.kernels import floats, pack
from dreamer_async.agent.structs import Activations, Core, Filtering, FilteringGradients

if TYPE_CHECKING:
    from dreamer_async.agent.rssm import RSSM


class Weights(NamedTuple):
    """The parameters that a step reads, in the order of `_Observe`; kernels are [in, out]."""

    w0: Tensor
    """[D, Hd] dynin0."""
    b0: Tensor
    g0: Tensor
    w1: Tensor
    """[S * K, Hd] dynin1."""
    b1: Tensor
    g1: Tensor
    own: Tensor
    """[G, D/G, D/G] what each block of dynhid reads of its own part of h."""
    common: Tensor
    """[G, 2 Hd, D/G] what it reads of x0 and x1."""
    gain: Tensor
    gru: Tensor
    """[G, D/G, 3 D/G] dyngru."""
    gru_bias: Tensor
    wo: Tensor
    """[D, Hd] what obs0 reads of h."""
    go: Tensor
    wl: Tensor
    """[Hd, S * K] obslogit."""
    bl: Tensor


def fits(dyn: RSSM, *inputs: Tensor) -> bool:
    """Whether native functions can take these inputs and layers: the paper's counts of layers."""
    config = dyn.config
    return kernels.fit(*inputs) and config.dyn_layers == 1 and config.posterior_layers == 1


def weights_of(dyn: RSSM) -> Weights:
    """Views of the parameters."""
    (hidden, norm), (obs, obs_norm) = dyn.dynhid[0], dyn.obs_stack[0]
    block, width = hidden.kernel.shape[-1], dyn.config.hidden
    return Weights(
        dyn.dynin0.kernel, dyn.dynin0.bias, dyn.dynin0norm.scale,
        dyn.dynin1.kernel, dyn.dynin1.bias, dyn.dynin1norm.scale,
        hidden.kernel[:, :block], hidden.kernel[:, block : block + 2 * width], norm.scale,
        dyn.dyngru.kernel, dyn.dyngru.bias,
        obs.kernel[: dyn.config.deter], obs_norm.scale, dyn.obslogit.kernel, dyn.obslogit.bias,
    )  # fmt: skip


def observe(
    dyn: RSSM,
    deter: Tensor,
    stoch: Tensor,
    embed: Tensor,
    action: Tensor,
    reset: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Filter [B, T, *] from the state [B, D], [B, S, K]: deter, stoch [B, T, S, K], logits."""
    keep = 1.0 - reset.float()
    token = dense_stack(embed, [token_layer(dyn)])
    action = action_part(dyn, action * keep[..., None])
    inputs = (deter.detach(), stoch.detach().flatten(-2), action, token, keep, noise)
    deter, stoch, logits = _Observe.apply(dyn, torch.is_grad_enabled(), *inputs, *weights_of(dyn))
    shape = (dyn.config.stoch, dyn.config.classes)
    return deter, stoch.unflatten(-1, shape), logits.unflatten(-1, shape)


def token_layer(dyn: RSSM) -> Dense:
    """What obs0 reads of embedded observations, with its bias: [..., E] -> [..., Hd]."""
    obs = dyn.obs_stack[0][0]
    return Dense(obs.kernel[dyn.config.deter :], obs.bias, None)


def action_part(dyn: RSSM, action: Tensor) -> Tensor:
    """What dynhid reads of embedded actions, with its bias: [..., A] -> [..., D]."""
    return dense_stack(action / action.detach().abs().clamp(min=1.0), action_layers(dyn))


def action_layers(dyn: RSSM) -> list[Dense]:
    """The stack that dynhid reads actions through: [..., A] -> [..., D]."""
    hidden = dyn.dynhid[0][0]
    kernel = hidden.kernel[:, -dyn.config.hidden :].transpose(0, 1).flatten(1)  # [Hd, D]
    first = Dense(dyn.dynin2.kernel, dyn.dynin2.bias, dyn.dynin2norm.scale)
    return [first, Dense(kernel, hidden.bias, None)]


def split_noise(noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Uniform numbers or, where they are integers, chosen classes."""
    if noise.dtype.is_floating_point:
        return noise.float().contiguous(), None
    return None, noise.long().contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor of whatever type the kernel expects there; null for None."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()


# -- the parameters, packed ------------------------------------------------------------------------


class Known(NamedTuple):
    """A core, for as long as the parameters stay what they are."""

    versions: list[int]
    core: Core
    held: list[Tensor]


def core_of(dyn: RSSM, weights: Weights) -> tuple[Core, list[Tensor]]:
    """The parameters as the kernels read them, and the tensors that hold them."""
    versions = [parameter._version for parameter in dyn.parameters()]
    if dyn.packed is None or dyn.packed.versions != versions:
        dyn.packed = Known(versions, *_pack_core(dyn, weights))
    return dyn.packed.core, dyn.packed.held


def _pack_core(dyn: RSSM, weights: Weights) -> tuple[Core, list[Tensor]]:
    config = dyn.config
    w = Weights(*(x.detach() for x in weights))
    packed = {
        "w0": pack(w.w0),
        "own": pack(w.own),
        "common": pack(w.common.transpose(0, 1).flatten(1)),
        "gru": pack(w.gru),
        "wo": pack(w.wo),
        "wl": pack(w.wl),
    }
    plain = {name: getattr(w, name) for name in _UNPACKED}
    core = Core(
        config.deter, config.hidden, config.stoch, config.classes, config.blocks, config.unimix
    )
    held = packed | plain
    for name, tensor in held.items():
        setattr(core, name, floats(tensor))
    return core, list(held.values())


_UNPACKED = ("b0", "g0", "w1", "b1", "g1", "gain", "gru_bias", "go", "bl")


def _add_transposes(core: Core, w: Weights) -> list[Tensor]:
    """What the backward pass reads besides; returns the tensors that hold it."""
    held = {
        "w0_t": pack(w.w0.t()),
        "w1_t": pack(w.w1.t()),
        "own_t": pack(w.own.transpose(1, 2)),
        "common_t": pack(w.common.transpose(1, 2).flatten(0, 1)),  # [D, 2 Hd]
        "gru_t": pack(w.gru.transpose(1, 2)),
        "wo_t": pack(w.wo.t()),
        "wl_t": pack(w.wl.t()),
    }
    for name, tensor in held.items():
        setattr(core, name, floats(tensor))
    return list(held.values())


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
        kernels.library().observe_forward(
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
        held = _add_transposes(ctx.core, Weights(*(x.detach() for x in w)))
        filtering = Filtering(
            steps, *map(floats, (deter0, stoch0, action, token, keep)), None, None,
            *map(floats, (deter, stoch, logits)),
        )  # fmt: skip
        given = {name: torch.empty_like(saved[name]) for name in ("u0", "u1", "v", "gru", "o")}
        given["l"] = torch.empty_like(logits).flatten(0, 1)
        gains = {name: getattr(w, name).new_zeros(ctx.pieces, *getattr(w, name).shape)
                 for name in ("g0", "g1", "gain", "go")}  # fmt: skip
        outside = [x.contiguous() for x in grad_outputs]
        kernels.library().observe_backward(
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
