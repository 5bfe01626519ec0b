"""Expected values and losses of two-hot distributions (`twohot.cpp`).

Legend: M bins.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent import distributions, losses
from dreamer_async.fast.native import library
from dreamer_async.fast.native.library import is_float32, pointer


def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """`distributions.twohot_mean`; with a gradient PyTorch's."""
    if torch.is_grad_enabled() or not is_float32(logits, bins):
        return distributions.twohot_mean(logits, bins)
    logits = logits.contiguous()
    mean = logits.new_empty(logits.shape[:-1])

    library.functions().twohot_mean(
        *_bins(bins), mean.numel(), pointer(logits), pointer(mean),
        library.threads(logits.numel()),
    )  # fmt: skip
    return mean


def twohot_loss(logits: Tensor, bins: Tensor, *targets: tuple[float, Tensor]) -> Tensor:
    """`losses.twohot_loss`."""
    if not is_float32(logits, bins, *(target for _, target in targets)):
        return losses.twohot_loss(logits, bins, *targets)
    weights = torch.tensor([weight for weight, _ in targets])
    given = torch.stack([target for _, target in targets], -1)
    loss: Tensor = _Loss.apply(logits, bins, weights, given)
    return loss


class _Loss(torch.autograd.Function):
    """Logits [..., M], bins [M], weights [J] and targets [..., J] -> losses [...]."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        logits, targets = logits.contiguous(), targets.contiguous()
        loss = logits.new_empty(logits.shape[:-1])
        ctx.save_for_backward(logits, bins, weights, targets)
        _run("twohot_loss", logits, bins, weights, targets, loss)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        [dloss] = grad_outputs
        logits, bins, weights, targets = ctx.saved_tensors
        dlogits = torch.empty_like(logits)
        _run("twohot_loss_backward", logits, bins, weights, targets, dloss.contiguous(), dlogits)
        return dlogits, None, None, None


def _run(
    name: str, logits: Tensor, bins: Tensor, weights: Tensor, targets: Tensor, *rest: Tensor
) -> None:
    getattr(library.functions(), name)(
        *_bins(bins), len(weights), pointer(weights), targets[..., 0].numel(),
        pointer(logits), pointer(targets), *map(pointer, rest), library.threads(logits.numel()),
    )  # fmt: skip


def _bins(bins: Tensor) -> tuple[int, ctypes.c_void_p]:
    assert bins.is_contiguous()
    return bins.shape[0], pointer(bins)
