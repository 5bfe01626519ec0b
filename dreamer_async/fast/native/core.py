"""The recurrent state-space model as native functions read it: its parameters, packed.

Legend: D deter, Hd hidden, S stoch, K classes, E embed, A action, G blocks.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor

from dreamer_async.agent.ops import Dense
from dreamer_async.agent.rssm import RSSM
from dreamer_async.config import ModelConfig
from dreamer_async.fast.native.library import (
    bfloat16_kernels,
    floats,
    kernels,
    pack,
    packs_bfloat16,
)
from dreamer_async.fast.native.structs import Core


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


def fits(model: ModelConfig) -> bool:
    """Whether native functions know such layers: the paper's counts of layers."""
    return model.dyn_layers == 1 and model.posterior_layers == 1


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


def token_layer(dyn: RSSM) -> Dense:
    """What obs0 reads of embedded observations, with its bias: [..., E] -> [..., Hd]."""
    obs = dyn.obs_stack[0][0]
    return Dense(obs.kernel[dyn.config.deter :], obs.bias, None)


def action_layers(dyn: RSSM) -> list[Dense]:
    """The stack that dynhid reads actions through: [..., A] -> [..., D]."""
    hidden = dyn.dynhid[0][0]
    kernel = hidden.kernel[:, -dyn.config.hidden :].transpose(0, 1).flatten(1)  # [Hd, D]
    first = dyn.dynin2.layer(dyn.dynin2norm)
    return [first, Dense(kernel, hidden.bias, None)]


class Known(NamedTuple):
    """A core, for as long as the parameters stay what they are."""

    versions: list[int]
    core: Core
    held: list[Tensor]


def core_of(dyn: RSSM, weights: Weights) -> tuple[Core, list[Tensor]]:
    """The parameters as the kernels read them, and the tensors that hold them."""
    versions = [parameter._version for parameter in dyn.parameters()]
    known = _known.get(dyn)
    if known is None or known.versions != versions or known.core.bfloat16 != packs_bfloat16():
        known = _known[dyn] = Known(versions, *_pack_core(dyn, weights))
    return known.core, known.held


_known: WeakKeyDictionary[RSSM, Known] = WeakKeyDictionary()
"""Of all models that are alive."""


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
        config.deter, config.hidden, config.stoch, config.classes, config.blocks, packs_bfloat16(),
        config.unimix,
    )  # fmt: skip
    for name, tensor in packed.items():
        setattr(core, name, kernels(tensor))
    for name, tensor in plain.items():
        setattr(core, name, floats(tensor))
    return core, [*packed.values(), *plain.values()]


_UNPACKED = ("b0", "g0", "w1", "b1", "g1", "gain", "gru_bias", "go", "bl")


def add_transposes(core: Core, w: Weights) -> list[Tensor]:
    """What the backward pass reads besides; returns the tensors that hold it."""
    with bfloat16_kernels(bool(core.bfloat16)):
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
        setattr(core, name, kernels(tensor))
    return list(held.values())
