"""The optimiser over one flat tensor: a few kernels instead of a few for each parameter.

Legend: R rows, W width, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent.optim import LaProp, Tensors, agc_excess, global_norm, laprop
from dreamer_async.config import OptimConfig
from dreamer_async.fast.cuda.flat import Flat


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
    """`laprop` over `Flat` tensors [R, W], clipped first: updates, their rate and their norm."""
    clipped = grads / excess[owner, None]
    [update], lr = laprop([clipped], [rms], [momentum], count, finite, config)
    return update, lr, update.norm()


class FlatLaProp(LaProp):
    """Optimiser state that lies behind each other; `rms` and `momentum` are views of it."""

    def __init__(self, params: Mapping[str, Tensor], config: OptimConfig) -> None:
        super().__init__(params, config)
        self._flat = Flat(self.params)
        self._grads, self._rms, self._momentum = (self._flat.zeros() for _ in range(3))
        self.rms, self.momentum = map(self._flat.views, (self._rms, self._momentum))
        self._laprop = flat_laprop

    def compile(self, compiled: Callable[[Any], Any]) -> None:
        """Compute with a compiled function."""
        self._laprop = compiled(flat_laprop)

    def interpret(self) -> None:
        """Take back `compile`."""
        self._laprop = flat_laprop

    @torch.no_grad()
    def step(self, grads: Tensors, finite: Tensor) -> dict[str, Tensor]:
        """Apply one update in place if `finite`, else change nothing; return metrics."""
        config = self.config
        excess = agc_excess(grads, self.params, config.agc, config.agc_floor)
        dense = [grad.contiguous() for grad in grads]  # else all are copied one by one
        torch._foreach_copy_(self._flat.views(self._grads), dense)
        flat = self._grads, excess, self._flat.owner, self._rms, self._momentum
        update, lr, norm = self._laprop(*flat, self.count, finite, config)
        torch._foreach_sub_(self.params, self._flat.views(update))
        return self.metrics(lr, norm, global_norm(self.params))
