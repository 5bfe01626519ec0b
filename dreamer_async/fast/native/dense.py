"""Stacks of dense layers as one native function each way (`src/dense.cpp`).

Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.ops import Dense
from dreamer_async.fast.native import library
from dreamer_async.fast.native.library import floats, is_float32, kernels, pack, padded, pointer
from dreamer_async.fast.native.structs import DenseLayer

PIECES, LEAST_ROWS = 8, 96
"""A backward pass adds up its gradients in at most so many pieces, of so many rows at least.

They do not depend on the number of threads, so neither does the result.
"""


class Saved(NamedTuple):
    """What another kernel computed with a stack: all that its gradient needs."""

    y: Tensor
    """[..., O]."""
    pre_norm: list[Tensor]
    """[N, O] in front of each norm; empty where there is none."""

    @staticmethod
    def room(lead: torch.Size, layers: Sequence[Dense], like: Tensor) -> Saved:
        """Memory for it."""
        y = like.new_empty(*lead, layers[-1].kernel.shape[-1])
        return Saved(y, [like.new_empty(lead.numel(), width) for width in _widths(layers)])


def dense(x: Tensor, layers: Sequence[Dense]) -> Tensor:
    """`ops.dense`."""
    return dense_stack(x, layers) if is_float32(x) else ops.dense(x, layers)


def heads(x: Tensor, hidden: Sequence[Dense], outputs: Sequence[Dense]) -> tuple[Tensor, ...]:
    """`ops.heads`, the outputs computed side by side."""
    if not is_float32(x):
        return ops.heads(x, hidden, outputs)
    return split_outputs(dense_stack(x, [*hidden, side_by_side(outputs)]), outputs)


def side_by_side(outputs: Sequence[Dense]) -> Dense:
    """Linear layers of one input as one layer."""
    if len(outputs) == 1:
        return outputs[0]
    kernel = torch.cat([output.kernel for output in outputs], 1)
    return Dense(kernel, torch.cat([output.bias for output in outputs]), None)


def split_outputs(y: Tensor, outputs: Sequence[Dense]) -> tuple[Tensor, ...]:
    """What each of such layers gave."""
    return y.split([output.bias.shape[0] for output in outputs], -1)


def dense_stack(x: Tensor, layers: Sequence[Dense], saved: Saved | None = None) -> Tensor:
    """Apply a stack to the last axis: [..., I] -> [..., O]; all float32 on a CPU.

    With `saved` only the gradient is left to do.
    """
    rows = _as_rows(x)
    tensors = [tensor for layer in layers for tensor in layer]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in [x, *tensors]):
        y: Tensor = _Stack.apply(rows, saved, *tensors)
    elif saved is not None:
        return saved.y
    else:
        y = _forward(rows, [_packed(layer) for layer in layers], None)
    return y.view(*x.shape[:-1], y.shape[-1])


def _as_rows(x: Tensor) -> Tensor:
    """[..., I] -> [N, I] with dense columns; rows may be apart."""
    x = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


class _Packed(NamedTuple):
    """A layer as the kernels read it."""

    inputs: int
    outputs: int
    kernel: Tensor
    bias: Tensor
    gain: Tensor | None

    @property
    def bfloat16(self) -> bool:
        """Whether the kernel is packed as such."""
        return self.kernel.dtype == torch.bfloat16


def _packed(layer: Dense) -> _Packed:
    inputs, outputs = layer.kernel.shape
    gain = None if layer.gain is None else layer.gain.detach()
    return _Packed(inputs, outputs, pack(layer.kernel), layer.bias.detach(), gain)


class Stack:
    """Layers in memory as other kernels read them; they must not change while it is in use.

    With `saved` those kernels write there what they compute in front of norms.
    """

    def __init__(self, layers: Sequence[Dense], saved: Saved | None = None) -> None:
        self._held = [_packed(layer) for layer in layers]
        self.count = len(layers)
        self.structures = _structures(self._held)
        pre_norm = saved.pre_norm if saved else []
        for structure, room in zip(self.structures, pre_norm, strict=False):
            structure.pre_norm = floats(room)

    @property
    def address(self) -> int:
        """Where the structures begin."""
        return ctypes.addressof(self.structures)


def _widths(layers: Sequence[Dense]) -> list[int]:
    """Outputs of the layers in front of a norm, 0 where there is none."""
    return [0 if layer.gain is None else layer.kernel.shape[-1] for layer in layers]


def _structures(layers: Sequence[_Packed]) -> ctypes.Array[DenseLayer]:
    structures = (DenseLayer * len(layers))()
    for s, layer in zip(structures, layers, strict=True):
        s.inputs, s.outputs = layer.inputs, layer.outputs
        s.bfloat16, s.kernel = layer.bfloat16, kernels(layer.kernel)
        s.bias, s.gain = floats(layer.bias), floats(layer.gain)
    return structures


def _forward(x: Tensor, layers: list[_Packed], pre_norm: list[Tensor] | None) -> Tensor:
    """Run a stack; save what the backward pass needs in `pre_norm`, one [N, O] per layer."""
    y = x.new_empty(x.shape[0], layers[-1].outputs)
    structures = _structures(layers)
    for structure, saved in zip(structures, pre_norm or [], strict=False):
        structure.pre_norm = floats(saved)
    library.functions().dense_forward(
        structures, len(layers), x.shape[0],
        pointer(x), x.stride(0), pointer(y), y.stride(0), library.threads(x.numel()),
    )  # fmt: skip
    return y


class _Stack(torch.autograd.Function):
    """The stack with its gradient; takes rows and (kernel, bias, gain) of each layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, saved: Saved | None, *tensors: Tensor | None) -> Tensor:
        given = [Dense(*tensors[i : i + 3]) for i in range(0, len(tensors), 3)]  # type: ignore[arg-type]
        layers = [_packed(layer) for layer in given]
        pre_norm = saved.pre_norm if saved else Saved.room(x.shape[:1], given, x).pre_norm
        ctx.layers, ctx.pre_norm = layers, pre_norm
        ctx.save_for_backward(x, *tensors[::3])
        return saved.y.flatten(0, -2) if saved else _forward(x, layers, pre_norm)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        [dy] = grad_outputs
        x, *weights = ctx.saved_tensors
        layers: list[_Packed] = ctx.layers
        pieces = max(1, min(PIECES, x.shape[0] // LEAST_ROWS))
        dx = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        dy = dy.contiguous()
        structures, transposed = _structures(layers), []
        sizes = [size for layer in layers for size in (layer.inputs * padded(layer.outputs),
                                                       *2 * [layer.outputs])]  # fmt: skip
        sums = x.new_empty(pieces, sum(sizes))
        parts = sums[0].split(sizes)
        for i, (s, kernel) in enumerate(zip(structures, weights, strict=True)):
            with library.bfloat16_kernels(layers[i].bfloat16):
                transposed.append(pack(kernel.t()) if i or dx is not None else None)
            s.transposed, s.pre_norm = kernels(transposed[i]), floats(ctx.pre_norm[i])
            s.dkernel, s.dbias, s.dgain = map(floats, parts[3 * i : 3 * i + 3])
        library.functions().dense_backward(
            structures, len(layers), x.shape[0], pointer(x), x.stride(0), pointer(dy), pointer(dx),
            pointer(sums), sums.shape[1], pieces, library.threads(x.numel()),
        )  # fmt: skip
        grads: list[Tensor | None] = [dx, None]
        for i, layer in enumerate(layers):
            dkernel, dbias, dgain = parts[3 * i : 3 * i + 3]
            grads += [dkernel.view(layer.inputs, -1)[:, : layer.outputs], dbias]
            grads.append(dgain if layer.gain is not None else None)
        return tuple(grads)
