"""KL losses of the latents and their entropies in one pass (`kl.cpp`).

Legend: B batch, T time, S stoch, K classes.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent import losses
from dreamer_async.agent.losses import LatentLosses
from dreamer_async.fast.native import library
from dreamer_async.fast.native.library import is_float32, pointer
from dreamer_async.fast.native.structs import Categorical


def latent_losses(posterior: Tensor, prior: Tensor, share: float, free_nats: float) -> LatentLosses:
    """`losses.latent_losses`; without a share of the uniform distribution PyTorch's."""
    if not is_float32(posterior, prior) or share <= 0:
        return losses.latent_losses(posterior, prior, share, free_nats)
    kl, *entropies = _KL.apply(posterior, prior, share)
    dyn, rep, means = kl[0], kl[1], [x.mean() for x in entropies]
    return LatentLosses(dyn.clamp(min=free_nats), rep.clamp(min=free_nats), *means)


class _KL(torch.autograd.Function):
    """KL(posterior || prior) twice, [2, B, T]: the first is the prior's, the second the other's."""

    @staticmethod
    def forward(
        ctx: Any, posterior: Tensor, prior: Tensor, share: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        posterior, prior = posterior.contiguous(), prior.contiguous()
        kl, entropy, prior_entropy = (posterior.new_empty(posterior.shape[:-2]) for _ in range(3))
        ctx.share = share
        ctx.save_for_backward(posterior, prior)
        _run("kl_forward", share, posterior, prior, kl, entropy, prior_entropy)
        ctx.mark_non_differentiable(entropy, prior_entropy)
        return torch.stack([kl, kl]), entropy, prior_entropy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        posterior, prior = ctx.saved_tensors
        dposterior, dprior = torch.empty_like(posterior), torch.empty_like(prior)
        ddyn, drep = (x.contiguous() for x in grad_outputs[0])
        _run("kl_backward", ctx.share, posterior, prior, drep, ddyn, dposterior, dprior)
        return dposterior, dprior, None


def _run(name: str, share: float, posterior: Tensor, prior: Tensor, *rest: Tensor) -> None:
    variables, classes = posterior.shape[-2:]
    getattr(library.functions(), name)(
        ctypes.byref(Categorical(variables, classes, share)),
        posterior[..., 0, 0].numel(), pointer(posterior), pointer(prior),
        *map(pointer, rest), library.threads(posterior.numel()),
    )  # fmt: skip
