"""RMSNorm and SiLU of feature maps, after pooling (encoder) or before a pixel shuffle (decoder).

On a CPU native functions do this where there are some (`kernels/feature_maps.cpp`): each map is
passed over once or twice instead of about ten times. Everywhere else PyTorch does. In float32 and
with the usual kernels, convolutions included, `images` does all of it.

Legend: N rows, H x W resolution of the smaller map, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent import kernels
from dreamer_async.agent.kernels import pointer

NORM_EPS = 1e-4
MOST_CHANNELS = 4096
"""More do not fit into a tile."""
PIECES = 32
"""Maps are cut into at most so many pieces, which threads share."""
TYPES = {torch.float32: "float", torch.bfloat16: "bf16"}


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Root mean square norm of the last axis in float32, with a gain."""
    return F.rms_norm(x.float(), scale.shape, scale, NORM_EPS).to(x.dtype)


def pool_norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """SiLU(norm(maximum of 2x2 pixels)): [N, 2H, 2W, C], [C] -> [N, H, W, C]."""
    if _native(x, scale):
        return _Pool.apply(x.contiguous(), scale)
    x = F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return F.silu(rms_norm(x, scale))


def shuffle_norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """SiLU(norm) of the phases of each pixel, at their places: [N, H, W, 4C] -> [N, 2H, 2W, C]."""
    if _native(x, scale):
        return _Shuffle.apply(x.contiguous(), scale)
    return F.silu(rms_norm(pixel_shuffle(x), scale))


def pixel_shuffle(x: Tensor) -> Tensor:
    """Put the four phases of each pixel at their places: [N, H, W, 4C] -> [N, 2H, 2W, C]."""
    rows, height, width, channels = x.shape
    x = x.reshape(rows, height, width, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(rows, 2 * height, 2 * width, channels // 4)


# -- native functions -----------------------------------------------------------------------------


def _native(x: Tensor, scale: Tensor) -> bool:
    known = x.device.type == "cpu" and x.dtype in TYPES and scale.shape[0] <= MOST_CHANNELS
    return kernels.ready() and known


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
    getattr(kernels.library(), f"{name}_{TYPES[small.dtype]}")(
        channels, rows, width, *map(pointer, tensors),
        *([] if dscale is None else [pointer(sums)]), pieces, kernels.threads(small.numel()),
    )  # fmt: skip
    if dscale is not None:
        dscale.copy_(sums.sum(0))
