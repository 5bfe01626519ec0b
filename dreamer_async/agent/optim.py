"""The optimiser: adaptive gradient clipping, then LaProp (normalise, then momentum).

The first preprint has Adam with a global clip; this is that of the later versions. One optimiser
trains world model, actor and critic together.

The stages are free functions of lists of tensors, one entry per parameter; every scalar that
changes with time is a 0-d tensor, so that no step waits for a number.

Legend: P parameters (tensors).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dreamer_async.config import OptimConfig

Tensors = list[Tensor]


def agc_excess(grads: Tensors, params: Tensors, clip: float, floor: float) -> Tensor:
    """By how much the norm of each gradient is over clip * max(floor, |param|), at least 1: [P]."""
    bound = clip * torch.stack(list(torch._foreach_norm(params))).clamp(min=floor)  # [P]
    return (torch.stack(list(torch._foreach_norm(grads))) / bound).clamp(min=1.0)


def clip_by_agc(grads: Tensors, params: Tensors, clip: float, floor: float) -> Tensors:
    """Scale each gradient tensor to at most clip * max(floor, |param|) in norm.

    g' = g / max(1, |g| / (clip max(floor, |p|))), whole tensors, biases and gains as well.
    """
    excess = agc_excess(grads, params, clip, floor)
    return list(torch._foreach_div(grads, list(excess.unbind())))


def scale_by_rms(
    grads: Tensors, rms: Tensors, count: Tensor, beta: float, eps: float
) -> tuple[Tensors, Tensors]:
    """Divide by the bias-corrected root mean square; also return the new second moments.

    v' = beta v + (1 - beta) g^2,  g' = g / (sqrt(v' / (1 - beta^n)) + eps); count is n.
    """
    moments = torch._foreach_mul(rms, beta)
    torch._foreach_addcmul_(moments, grads, grads, 1.0 - beta)
    roots = torch._foreach_div(moments, correction(beta, count))
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, eps)
    return list(torch._foreach_div(grads, roots)), list(moments)


def scale_by_momentum(
    grads: Tensors, momentum: Tensors, count: Tensor, beta: float
) -> tuple[Tensors, Tensors]:
    """Bias-corrected momentum of normalised gradients; also return the new momentum.

    m' = beta m + (1 - beta) g,  g' = m' / (1 - beta^n); count is n.
    """
    moments = torch._foreach_mul(momentum, beta)
    torch._foreach_add_(moments, grads, alpha=1.0 - beta)
    return list(torch._foreach_div(moments, correction(beta, count))), list(moments)


def learning_rate(count: Tensor, lr: float, warmup: int) -> Tensor:
    """Rise linearly over the warm-up: []; count is the number of updates done.

    So the first update has the rate 0, and changes nothing but moments.
    """
    return lr * ((count + (warmup == 0)) / max(1, warmup)).clamp(max=1.0)


def global_norm(tensors: Tensors) -> Tensor:
    """Euclidean norm of all tensors together: []."""
    return torch.stack(list(torch._foreach_norm(tensors))).norm()


@torch.no_grad()
def keep_if(condition: Tensor, old: Tensors, new: Tensors) -> None:
    """Overwrite old with new in place where a 0-d condition holds (NaN must not leak)."""
    kept = [torch.where(condition, n, o) for o, n in zip(old, new, strict=True)]
    torch._foreach_copy_(old, kept)


def laprop(
    grads: Tensors,
    rms: Tensors,
    momentum: Tensors,
    count: Tensor,
    finite: Tensor,
    config: OptimConfig,
) -> tuple[Tensors, Tensor]:
    """Move the moments and the count in place if `finite` []; return the updates and their rate.

    Updates are what to subtract, each as its parameter: zeros if not finite. The gradients are
    clipped already.
    """
    after = count + 1
    grads, new_rms = scale_by_rms(grads, rms, after, config.beta2, config.eps)
    grads, new_momentum = scale_by_momentum(grads, momentum, after, config.momentum)
    lr = learning_rate(count, config.lr, config.warmup)
    updates = [torch.where(finite, u, 0.0) for u in torch._foreach_mul(grads, lr)]
    keep_if(finite, rms, new_rms)
    keep_if(finite, momentum, new_momentum)
    keep_if(finite, [count], [after])
    return updates, lr


class LaProp:
    """Clipping and LaProp over named parameters, with their state."""

    def __init__(self, params: Mapping[str, Tensor], config: OptimConfig) -> None:
        self.names = list(params)
        self.params: Tensors = list(params.values())
        self.config = config
        self.size = sum(p.numel() for p in self.params)
        self.rms, self.momentum = self._zeros(), self._zeros()
        self.count = torch.zeros((), dtype=torch.int64, device=self.params[0].device)
        """[] updates done."""

    def _zeros(self) -> Tensors:
        """Moments of all parameters, before the first update."""
        return [torch.zeros_like(p, requires_grad=False) for p in self.params]

    @torch.no_grad()
    def step(self, grads: Tensors, finite: Tensor) -> dict[str, Tensor]:
        """Apply one update in place if `finite` [], else change nothing; return metrics."""
        config = self.config
        grads = clip_by_agc(grads, self.params, config.agc, config.agc_floor)
        updates, lr = laprop(grads, self.rms, self.momentum, self.count, finite, config)
        norm = global_norm(updates)
        torch._foreach_sub_(self.params, updates)
        return self.metrics(lr, norm, global_norm(self.params))

    def metrics(self, lr: Tensor, updates: Tensor, params: Tensor) -> dict[str, Tensor]:
        """Of a step, given the norms of all updates and of all parameters."""
        root = self.size**0.5
        return {"opt/lr": lr, "opt/update_rms": updates / root, "opt/param_rms": params / root}


def correction(beta: float, count: Tensor) -> Tensor:
    """1 - beta^n, by which moments that began with zeros are too small."""
    return (1.0 - beta ** count.double()).float()
