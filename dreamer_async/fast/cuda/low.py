"""Kernels in the compute type for a whole update: cast once, by one kernel for many, and shared.

Every layer casts its own parameters (`agent.nets`), which on a GPU is a kernel for each of them and
another for its gradient. While regions are computed, the layers hold copies that were cast
together, and the gradients of these copies become those of the parameters together, too. No number
changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent.actor_critic import Agent
from dreamer_async.agent.nets import BlockLinear, Kernel, Linear


class Low:
    """Puts an agent's kernels, where one cast serves, into its compute type."""

    def __init__(self, agent: Agent) -> None:
        self._dtype = agent.dtype
        self._layers = shared_layers(agent)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """In this context the layers have copies of their kernels, made when it begins.

        What is computed in it can be differentiated after it, with respect to the parameters.
        """
        params = [layer.kernel for layer in self._layers]
        try:
            copies = _Cast.apply(self._dtype, *params)
            for layer, copy in zip(self._layers, copies, strict=True):
                layer._parameters["kernel"] = copy
            yield
        finally:
            for layer, param in zip(self._layers, params, strict=True):
                layer._parameters["kernel"] = param


def shared_layers(agent: Agent) -> list[Kernel]:
    """Layers whose kernel is read as it is, and with a gradient only once.

    Filtering and convolutions lay theirs out anew, and cast them by the way. The critic is read for
    imagined and for replayed states; gradients of these are to be added in float32.
    """
    dyn = [layer for layer, _ in agent.dyn.prior_stack] + [agent.dyn.priorlogit]
    parts = agent.enc, agent.dec, agent.rew, agent.con, agent.pol, agent.slowval
    others = [layer for part in parts for layer in part.modules()]
    return [layer for layer in [*dyn, *others] if isinstance(layer, Linear | BlockLinear)]


class _Cast(torch.autograd.Function):
    """Copies of float32 tensors in another type; gradients come back in float32."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _cast(tensors, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [grad for grad in grads if grad is not None]
        wide = iter(_cast(given, torch.float32))
        return None, *(None if grad is None else next(wide) for grad in grads)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(x, dtype=dtype) for x in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
