"""RMSNorm and SiLU of feature maps, after pooling (encoder) or before a pixel shuffle (decoder).

For convolutions that PyTorch does: each map is passed over once or twice (`feature_maps.cpp`)
instead of about ten times. In float32 and with the usual kernels `images` does all of it.

Legend: N rows, H x W resolution of the smaller map, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.fast.native import library
from dreamer_async.fast.native.library import pointer

MOST_CHANNELS = 4096
"""More do not fit into a tile."""
PIECES = 32
"""Maps are cut into at most so many pieces, which threads share."""
TYPES = {torch.float32: "float", torch.bfloat16: "bf16"}


def pool_norm_silu(x: Tensor, gain: Tensor) -> Tensor:
    """`ops.pool_norm_silu`."""
    y: Tensor = _Pool.apply(x.contiguous(), gain) if _fit(x, gain) else ops.pool_norm_silu(x, gain)
    return y


def shuffle_norm_silu(x: Tensor, gain: Tensor) -> Tensor:
    """`ops.shuffle_norm_silu`."""
    if not _fit(x, gain):
        return ops.shuffle_norm_silu(x, gain)
    y: Tensor = _Shuffle.apply(x.contiguous(), gain)
    return y


def _fit(x: Tensor, gain: Tensor) -> bool:
    return x.dtype in TYPES and gain.shape[0] <= MOST_CHANNELS


# -- native functions -----------------------------------------------------------------------------


def _pooled(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The result, the maxima, and which of the four pixels each is."""
    rows, height, width, channels = x.shape
    out = x.new_empty(rows, height // 2, width // 2, channels)
    pooled, winner = torch.empty_like(out), torch.empty_like(out, dtype=torch.uint8)
    _run("pool_forward", pooled, [x, scale, pooled, winner, out])
    return out, pooled, winner


def _shuffled(x: Tensor, scale: Tensor) -> Tensor:
    rows, height, width, channels = x.shape
    out = x.new_empty(rows, 2 * height, 2 * width, channels // 4)
    _run("shuffle_forward", x, [x, scale, out])
    return out


class _Pool(torch.autograd.Function):
    """Pooling, norm and SiLU with their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        out, pooled, winner = _pooled(x, scale)
        ctx.save_for_backward(pooled, winner, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        pooled, winner, scale = ctx.saved_tensors
        rows, height, width, channels = pooled.shape
        dx = pooled.new_empty(rows, 2 * height, 2 * width, channels)
        dout, dscale = grad_outputs[0].contiguous(), torch.empty_like(scale)
        _run("pool_backward", pooled, [pooled, winner, scale, dout, dx], dscale)
        return dx, dscale


class _Shuffle(torch.autograd.Function):
    """Pixel shuffle, norm and SiLU with their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return _shuffled(x, scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        dx, dscale = torch.empty_like(x), torch.empty_like(scale)
        _run("shuffle_backward", x, [x, scale, grad_outputs[0].contiguous(), dx], dscale)
        return dx, dscale


def _run(name: str, small: Tensor, tensors: list[Tensor], dscale: Tensor | None = None) -> None:
    """Call a native function for all rows of pixels in pieces that do not depend on the threads.

    `tensors` are its pointers, of which the scale has one axis. The gradient of the scale is added
    up in the order of the pieces.
    """
    assert all(tensor.is_contiguous() for tensor in tensors)
    channels = next(tensor.shape[0] for tensor in tensors if tensor.ndim == 1)
    rows, width = small.shape[0] * small.shape[1], small.shape[2]
    pieces = min(PIECES, rows)
    sums = torch.zeros(pieces, channels)
    getattr(library.functions(), f"{name}_{TYPES[small.dtype]}")(
        channels, rows, width, *map(pointer, tensors),
        *([] if dscale is None else [pointer(sums)]), pieces, library.threads(small.numel()),
    )  # fmt: skip
    if dscale is not None:
        dscale.copy_(sums.sum(0))
