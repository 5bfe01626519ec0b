"""The optimiser: adaptive gradient clipping, then LaProp (normalise, then momentum).

The stages are free functions of lists of tensors, one entry per parameter; every scalar that
changes with time is a 0-d tensor, so nothing waits for the device. On a CPU a native function does
all of them tensor by tensor (`kernels/optim.cpp`); on a GPU they run over one flat tensor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.flat import Flat
from dreamer_async.agent.kernels import floats
from dreamer_async.agent.structs import OptimSettings, OptimTensor
from dreamer_async.config import OptimConfig

Tensors = list[Tensor]


def agc_excess(grads: Tensors, params: Tensors, clip: float, floor: float) -> Tensor:
    """By how much the norm of each gradient is over clip * max(floor, |param|), at least 1: [n]."""
    bound = clip * torch.stack(list(torch._foreach_norm(params))).clamp(min=floor)
    return (torch.stack(list(torch._foreach_norm(grads))) / bound).clamp(min=1.0)


def clip_by_agc(grads: Tensors, params: Tensors, clip: float, floor: float) -> Tensors:
    """Scale each gradient tensor to at most clip * max(floor, |param|) in norm."""
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
    roots = torch._foreach_div(moments, _correction(beta, count))
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
    return list(torch._foreach_div(moments, _correction(beta, count))), list(moments)


def learning_rate(count: Tensor, lr: float, warmup: int) -> Tensor:
    """Rise linearly over the warm-up; count is the number of updates done, so it starts at 0."""
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
    """Move the moments and the count in place if `finite`; return the updates and their rate.

    Updates are what to subtract: zeros if not finite.
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


def flat_laprop(
    grads: Tensor,
    excess: Tensor,
    owner: Tensor,
    rms: Tensor,
    momentum: Tensor,
    count: Tensor,
    finite: Tensor,
    config: OptimConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same over `Flat` tensors [R, W], clipped first: updates, their rate and their norm."""
    clipped = grads / excess[owner, None]
    [update], lr = laprop([clipped], [rms], [momentum], count, finite, config)
    return update, lr, update.norm()


class LaProp:
    """Optimiser state over named parameters."""

    def __init__(
        self, params: Mapping[str, Tensor], config: OptimConfig, *, flat: bool = False
    ) -> None:
        self.names = list(params)
        self.params: Tensors = list(params.values())
        self.config = config
        self.size = sum(p.numel() for p in self.params)
        self._flat = Flat(self.params) if flat else None
        self._grads, self._rms, self._momentum = (
            self._flat.zeros() if self._flat else torch.empty(0) for _ in range(3)
        )
        self.rms, self.momentum = map(self._zeros, (self._rms, self._momentum))
        self.count = torch.zeros((), dtype=torch.int64, device=self.params[0].device)
        """[] updates done."""
        self._flat_laprop = flat_laprop

    def _zeros(self, flat: Tensor) -> Tensors:
        if self._flat is not None:
            return self._flat.views(flat)
        return [torch.zeros_like(p, requires_grad=False) for p in self.params]

    def compile(self, compiled: Callable[[Any], Any]) -> None:
        """Compute over flat tensors with a compiled function."""
        self._flat_laprop = compiled(flat_laprop)

    def interpret(self) -> None:
        """Take back `compile`."""
        self._flat_laprop = flat_laprop

    @torch.no_grad()
    def step(self, grads: Tensors, finite: Tensor) -> dict[str, Tensor]:
        """Apply one update in place if `finite`, else change nothing; return metrics."""
        if kernels.fit(*self.params, *grads) and bool(finite):
            return self._native_step(grads)
        config, state = self.config, (self.count, finite, self.config)
        if self._flat is None:
            grads = clip_by_agc(grads, self.params, config.agc, config.agc_floor)
            updates, lr = laprop(grads, self.rms, self.momentum, *state)
            norm = global_norm(updates)
        else:
            excess = agc_excess(grads, self.params, config.agc, config.agc_floor)
            dense = [grad.contiguous() for grad in grads]  # else all are copied one by one
            torch._foreach_copy_(self._flat.views(self._grads), dense)
            flat = self._grads, excess, self._flat.owner, self._rms, self._momentum
            update, lr, norm = self._flat_laprop(*flat, *state)
            updates = self._flat.views(update)
        torch._foreach_sub_(self.params, updates)
        return self._metrics(lr, norm, global_norm(self.params))

    def _native_step(self, grads: Tensors) -> dict[str, Tensor]:
        config = self.config
        lr = learning_rate(self.count, config.lr, config.warmup)
        self.count += 1
        settings = OptimSettings(
            config.agc, config.agc_floor, config.beta2, config.momentum,
            _correction(config.beta2, self.count).item(),
            _correction(config.momentum, self.count).item(), config.eps, lr.item(),
        )  # fmt: skip
        tensors = (OptimTensor * len(self.params))()
        grads = [grad.contiguous() for grad in grads]
        lists = (grads, self.params, self.rms, self.momentum)
        for tensor, grad, param, rms, momentum in zip(tensors, *lists, strict=True):
            tensor.size, tensor.gradient = grad.numel(), floats(grad)
            tensor.parameter, tensor.rms, tensor.momentum = map(floats, (param, rms, momentum))
        kernels.library().optimiser_step(
            tensors, len(tensors), ctypes.byref(settings), kernels.threads(self.size)
        )
        torch.autograd.graph.increment_version(self.params)  # whoever remembers them must notice
        updates = sum(tensor.update_squares for tensor in tensors) ** 0.5
        params = sum(tensor.parameter_squares for tensor in tensors) ** 0.5
        return self._metrics(lr, torch.tensor(updates), torch.tensor(params))

    def _metrics(self, lr: Tensor, updates: Tensor, params: Tensor) -> dict[str, Tensor]:
        root = self.size**0.5
        return {"opt/lr": lr, "opt/update_rms": updates / root, "opt/param_rms": params / root}


def _correction(beta: float, count: Tensor) -> Tensor:
    return (1.0 - beta ** count.double()).float()
