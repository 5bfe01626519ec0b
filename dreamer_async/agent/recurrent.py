"""The recurrent state-space model as native functions (`kernels/recurrent.cpp`).

Filtering is one call for all steps, and its backward pass another: only what depends on the state
before is done step by step. The rest (projections of tokens and actions, the gradients of all
kernels) are large products over all steps.

Legend: B batch, T time, R rows, D deter, Hd hidden, S stoch, K classes, E embed, G blocks.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.dense import Dense, Stack, dense_stack
from dreamer_async.agent.kernels import floats, pack
from dreamer_async.agent.nets import dense_layers

if TYPE_CHECKING:
    from dreamer_async.agent.heads import Actor
    from dreamer_async.agent.rssm import RSSM
    from envs.spec import ActionSpec


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
    obs = dyn.obs_stack[0][0]
    token = dense_stack(embed, [Dense(obs.kernel[dyn.config.deter :], obs.bias, None)])
    action = action_part(dyn, action * keep[..., None])
    inputs = (deter.detach(), stoch.detach().flatten(-2), action, token, keep, noise)
    deter, stoch, logits = _Observe.apply(dyn, torch.is_grad_enabled(), *inputs, *weights_of(dyn))
    shape = (dyn.config.stoch, dyn.config.classes)
    return deter, stoch.unflatten(-1, shape), logits.unflatten(-1, shape)


def action_part(dyn: RSSM, action: Tensor) -> Tensor:
    """What dynhid reads of embedded actions, with its bias: [..., A] -> [..., D]."""
    return dense_stack(action / action.detach().abs().clamp(min=1.0), _action_layers(dyn))


def _action_layers(dyn: RSSM) -> list[Dense]:
    hidden = dyn.dynhid[0][0]
    kernel = hidden.kernel[:, -dyn.config.hidden :].transpose(0, 1).flatten(1)  # [Hd, D]
    first = Dense(dyn.dynin2.kernel, dyn.dynin2.bias, dyn.dynin2norm.scale)
    return [first, Dense(kernel, hidden.bias, None)]


def imagine(
    dyn: RSSM, actor: Actor, start: Tensor, action_noise: Tensor, prior_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Roll out H steps from start [R, F]: feat [R, H+1, F], action [R, H, *]; no gradients."""
    rows, horizon = action_noise.shape[:2]
    feat = start.new_empty(rows, horizon + 1, start.shape[-1])
    feat[:, 0] = start
    action = start.new_empty(rows, horizon, actor.action.columns)
    drawn, given = _split_action_noise(actor.action, action_noise)
    uniform, chosen = _split_noise(prior_noise)
    core, _held = _core(dyn, weights_of(dyn))
    policy, parts = Stack(_actor_layers(actor)), actor.heads
    sizes = (ctypes.c_int * len(parts))(*(head.size for head in parts))
    kinds = (ctypes.c_int * len(parts))(*(head.discrete for head in parts))
    prior, action_stack = Stack(_prior_layers(dyn)), Stack(_action_layers(dyn))
    kernels.library().imagine_forward(
        ctypes.byref(core),
        ctypes.byref(
            _Actor(
                policy.address, policy.count, len(parts),
                ctypes.addressof(sizes), ctypes.addressof(kinds), *parts[0].std_range,
            )
        ),
        ctypes.byref(
            _Imagined(
                prior.address, action_stack.address, prior.count, action_stack.count, horizon,
                *map(_address, (drawn, given, uniform, chosen, feat, action)),
            )
        ),
        ctypes.c_long(rows), kernels.threads(feat.numel()),
    )  # fmt: skip
    return feat, action[..., 0].long() if actor.action.kind == "discrete" else action


def _prior_layers(dyn: RSSM) -> list[Dense]:
    return [*dense_layers(dyn.prior_stack), Dense(dyn.priorlogit.kernel, dyn.priorlogit.bias, None)]


def _actor_layers(actor: Actor) -> list[Dense]:
    """The hidden layers, and one last layer for the parameters of all parts."""
    last = [linear for head in actor.heads for linear in head.linears()]
    kernel = torch.cat([linear.kernel for linear in last], 1)
    layers = dense_layers(actor.mlp.stack)
    return [*layers, Dense(kernel, torch.cat([linear.bias for linear in last]), None)]


def _split_action_noise(spec: ActionSpec, noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Random numbers, or the actions that they stand for: [R, H, C]."""
    if spec.kind == "discrete":
        noise = noise.unsqueeze(-1)
    if noise.dtype in (torch.float64, torch.int64):
        return None, noise.double().contiguous()
    return noise.contiguous(), None


def _split_noise(noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Uniform numbers or, where they are integers, chosen classes."""
    if noise.dtype.is_floating_point:
        return noise.float().contiguous(), None
    return None, noise.long().contiguous()


def _address(tensor: Tensor | None) -> int | None:
    """Of a contiguous tensor of whatever type the kernel expects there; null for None."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()


# -- structures of recurrent.cpp -------------------------------------------------------------------


def _pointers(*names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, ctypes.c_void_p) for name in names)


class _Core(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("deter", "hidden", "variables", "classes", "blocks")),
        ("share", ctypes.c_float),
        *_pointers("w0", "b0", "g0", "w1", "b1", "g1", "own", "common", "gain", "gru", "gru_bias"),
        *_pointers("wo", "go", "wl", "bl"),
        *_pointers("w0_t", "w1_t", "own_t", "common_t", "gru_t", "wo_t", "wl_t"),
    )


class _Kept(ctypes.Structure):
    _fields_ = _pointers("u0", "u1", "x", "v", "q", "gru", "o", "p")


class _Actor(ctypes.Structure):
    _fields_ = (
        *_pointers("layers"),
        *((name, ctypes.c_int) for name in ("count", "parts")),
        *_pointers("sizes", "discrete"),
        *((name, ctypes.c_float) for name in ("least", "most")),
    )


class _Imagined(ctypes.Structure):
    _fields_ = (
        *_pointers("prior", "action"),
        *((name, ctypes.c_int) for name in ("prior_count", "action_count")),
        ("horizon", ctypes.c_long),
        *_pointers("action_noise", "chosen_actions", "noise", "chosen", "feat", "actions"),
    )


class _Observed(ctypes.Structure):
    _fields_ = (
        ("steps", ctypes.c_long),
        *_pointers("deter0", "stoch0", "action", "token", "keep", "noise", "chosen"),
        *_pointers("deter", "stoch", "logits"),
    )


class _Gradients(ctypes.Structure):
    _fields_ = _pointers(
        *("deter", "stoch", "logits", "u0", "u1", "v", "gru", "o", "l", "g0", "g1", "gain", "go")
    )


class Known(NamedTuple):
    """A core, for as long as the parameters stay what they are."""

    versions: list[int]
    core: _Core
    held: list[Tensor]


def _core(dyn: RSSM, weights: Weights) -> tuple[_Core, list[Tensor]]:
    """The parameters as the kernels read them, and the tensors that hold them."""
    versions = [parameter._version for parameter in dyn.parameters()]
    if dyn.packed is None or dyn.packed.versions != versions:
        dyn.packed = Known(versions, *_pack_core(dyn, weights))
    return dyn.packed.core, dyn.packed.held


def _pack_core(dyn: RSSM, weights: Weights) -> tuple[_Core, list[Tensor]]:
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
    core = _Core(
        config.deter, config.hidden, config.stoch, config.classes, config.blocks, config.unimix
    )
    held = packed | plain
    for name, tensor in held.items():
        setattr(core, name, floats(tensor))
    return core, list(held.values())


_UNPACKED = ("b0", "g0", "w1", "b1", "g1", "gain", "gru_bias", "go", "bl")


def _add_transposes(core: _Core, w: Weights) -> list[Tensor]:
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
        keeps: bool,
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
        uniform, chosen = _split_noise(noise)
        inputs = [x.contiguous() for x in (deter0, stoch0, action, token, keep)]
        deter, stoch, logits = (
            deter0.new_empty(batch, steps, width) for width in (config.deter, latent, latent)
        )
        core, held = _core(dyn, Weights(*weights))
        observed = _Observed(
            steps, *map(floats, inputs), floats(uniform),
            _address(chosen),
            floats(deter), floats(stoch), floats(logits),
        )  # fmt: skip
        kept = _kept(dyn, batch * steps, deter0) if keeps else {}
        pieces = min(batch, torch.get_num_threads())
        kernels.library().observe_forward(
            ctypes.byref(core), ctypes.byref(observed),
            ctypes.byref(_Kept(*map(floats, kept.values()))),
            ctypes.c_long(batch), ctypes.c_long(pieces), pieces,
        )  # fmt: skip
        if keeps:
            ctx.save_for_backward(*inputs, deter, stoch, logits, *kept.values(), *weights)
            ctx.core, ctx.held, ctx.pieces = _Core.from_buffer_copy(core), held, pieces
        return deter, stoch, logits

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        deter0, stoch0, action, token, keep, deter, stoch, logits = saved[:8]
        kept = dict(zip(_KEPT, saved[8:16], strict=True))
        w = Weights(*saved[16:])
        batch, steps = keep.shape
        held = _add_transposes(ctx.core, Weights(*(x.detach() for x in w)))
        observed = _Observed(
            steps, *map(floats, (deter0, stoch0, action, token, keep)), None, None,
            *map(floats, (deter, stoch, logits)),
        )  # fmt: skip
        given = {name: torch.empty_like(kept[name]) for name in ("u0", "u1", "v", "gru", "o")}
        given["l"] = torch.empty_like(logits).flatten(0, 1)
        gains = {name: getattr(w, name).new_zeros(ctx.pieces, *getattr(w, name).shape)
                 for name in ("g0", "g1", "gain", "go")}  # fmt: skip
        outside = [x.contiguous() for x in grad_outputs]
        kernels.library().observe_backward(
            ctypes.byref(ctx.core), ctypes.byref(observed),
            ctypes.byref(_Kept(*map(floats, kept.values()))),
            ctypes.byref(_Gradients(*map(floats, [*outside, *given.values(), *gains.values()]))),
            ctypes.c_long(batch), ctypes.c_long(ctx.pieces), ctx.pieces,
        )  # fmt: skip
        del held
        dgains = {name: x.sum(0) for name, x in gains.items()}
        before = [_before(*pair, keep) for pair in ((deter0, deter), (stoch0, stoch))]
        grads = _kernel_gradients(w, before, deter.flatten(0, 1), kept, given, dgains)
        return (
            None, None, None, None, given["v"].view_as(action), given["o"].view_as(token),
            None, None, *grads,
        )  # fmt: skip


_KEPT: tuple[str, ...] = ("u0", "u1", "x", "v", "q", "gru", "o", "p")


def _kept(dyn: RSSM, rows: int, like: Tensor) -> dict[str, Tensor]:
    """Memory for what the backward pass reads, [B * T, *] each, in the order of the structure."""
    hidden, deter = dyn.config.hidden, dyn.config.deter
    widths = (hidden, hidden, 2 * hidden, deter, deter, 3 * deter, hidden, hidden)
    return {name: like.new_empty(rows, width) for name, width in zip(_KEPT, widths, strict=True)}


def _before(first: Tensor, then: Tensor, keep: Tensor) -> Tensor:
    """States in front of each step, cleared at resets: [B, *], [B, T, *] -> [B * T, *]."""
    before = torch.cat([first[:, None], then[:, :-1]], 1)
    return (before * keep[..., None]).flatten(0, 1)


def _kernel_gradients(
    w: Weights,
    before: list[Tensor],
    deter: Tensor,
    kept: dict[str, Tensor],
    given: dict[str, Tensor],
    gains: dict[str, Tensor],
) -> Weights:
    """Sums over all rows and steps: what a layer read times the gradient of what it gave."""
    blocks, block, _ = w.own.shape
    h, z = before
    split = lambda x: x.unflatten(-1, (blocks, -1)).permute(1, 2, 0)  # noqa: E731  [G, F/G, N]
    of_blocks = lambda x: x.unflatten(-1, (blocks, -1)).transpose(0, 1)  # noqa: E731  [G, N, F/G]
    common = kept["x"].t() @ given["v"]  # [2 Hd, D]
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
        gru=torch.bmm(split(kept["q"]), of_blocks(given["gru"])),
        gru_bias=given["gru"].sum(0),
        wo=deter.t() @ given["o"],
        go=gains["go"],
        wl=kept["p"].t() @ given["l"],
        bl=given["l"].sum(0),
    )
