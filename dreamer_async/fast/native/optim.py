"""The optimiser as one native function, tensor by tensor (`optim.cpp`)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from dreamer_async.agent.optim import LaProp, Tensors, correction, learning_rate
from dreamer_async.fast.native import library
from dreamer_async.fast.native.library import floats, is_float32
from dreamer_async.fast.native.structs import OptimSettings, OptimTensor


class NativeLaProp(LaProp):
    """`LaProp` of float32 parameters."""

    @torch.no_grad()
    def step(self, grads: Tensors, finite: Tensor) -> dict[str, Tensor]:
        """Apply one update in place if `finite`, else change nothing; return metrics."""
        if not is_float32(*self.params, *grads) or not bool(finite):
            return super().step(grads, finite)
        lr = learning_rate(self.count, self.config.lr, self.config.warmup)
        self.count += 1
        grads = [grad.contiguous() for grad in grads]  # which the structures point to
        tensors = self._structures(grads)
        library.functions().optimiser_step(
            tensors, len(tensors), ctypes.byref(self._settings(lr)), library.threads(self.size)
        )
        torch.autograd.graph.increment_version(self.params)  # whoever remembers them must notice
        updates = sum(tensor.update_squares for tensor in tensors) ** 0.5
        params = sum(tensor.parameter_squares for tensor in tensors) ** 0.5
        return self.metrics(lr, torch.tensor(updates), torch.tensor(params))

    def _structures(self, grads: Tensors) -> ctypes.Array[OptimTensor]:
        tensors = (OptimTensor * len(self.params))()
        lists = (grads, self.params, self.rms, self.momentum)
        for tensor, grad, param, rms, momentum in zip(tensors, *lists, strict=True):
            tensor.size, tensor.gradient = grad.numel(), floats(grad)
            tensor.parameter, tensor.rms, tensor.momentum = map(floats, (param, rms, momentum))
        return tensors

    def _settings(self, lr: Tensor) -> OptimSettings:
        config = self.config
        return OptimSettings(
            config.agc, config.agc_floor, config.beta2, config.momentum,
            correction(config.beta2, self.count).item(),
            correction(config.momentum, self.count).item(), config.eps, lr.item(),
        )  # fmt: skip
