"""The convolutional encoder and decoder laid out for GPUs: few kernels, few passes over maps.

Compiled, a convolution is followed by one kernel, which pools (or puts phases at their places),
adds the bias, norms and activates; one gives the gradient, one more spreads it over what was
pooled, and sums over pixels are apart. Tensor cores take channels in multiples of 8, so maps carry
zeros up to there in the compute type; parameters are what they are everywhere, and are widened
where they are cast.

The equations are those of `agent.ops`. Acting goes that way, too: it launches fewer kernels with
PyTorch's own operations.

Legend: N images, H x W resolution of the smaller map, C channels, C' widened channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.ops import NORM_EPS, ImageLayer, gain_of

VECTOR = 8
"""Channels that tensor cores take at once: 16 bytes."""
PHASES = 6
"""Axes of the output pixels of each input pixel: [N, H, W, 2 rows, 2 columns, C]."""


def encode(images: Tensor, layers: Sequence[ImageLayer], dtype: torch.dtype) -> Tensor:
    """Bytes to features: [N, H, W, C] uint8 -> [N, h * w * c], in the order row, column, channel.

    Each layer is a convolution of x / 255 - 1/2, pooling to half the resolution, norm and SiLU.
    """
    if not torch.is_grad_enabled():
        return ops.encode_images(images, layers, dtype)
    x = images.to(dtype) / 255.0 - 0.5
    x = _widen(x, _width(x.shape[-1], dtype))
    for layer in layers:
        y = _convolve(x, _widen_outputs(layer.kernel, _width(layer.bias.shape[0], dtype)))
        x = _norm_silu(pool(y), layer)
    return x[..., : layers[-1].bias.shape[0]].flatten(1)


def decode(features: Tensor, layers: Sequence[ImageLayer]) -> Tensor:
    """Features to images: [N, h, w, c] in the compute type -> [N, H, W, C] in (0, 1), float32."""
    if not torch.is_grad_enabled():
        return ops.decode_images(features, layers)
    dtype = features.dtype
    x = _widen(features, _width(features.shape[-1], dtype))
    *hidden, last = layers
    for layer in hidden:
        x = _norm_silu(_phases(x, layer, _width(layer.bias.shape[0], dtype)), layer)
    channels = last.bias.shape[0]
    x = _phases(x, last, _width(4 * channels, dtype) // 4)
    # Cut in float32, so that what is kept for the gradient is what the convolution wrote.
    return _placed(torch.sigmoid(x.float()[..., :channels] + last.bias))


def pool(x: Tensor) -> Tensor:
    """The maximum of 2x2 pixels, whose gradient goes to the first: [N, 2H, 2W, C] -> [N, H, W, C].

    Inductor turns the gradient of PyTorch's own into atomic sums in a float32 map of another
    layout, which is filled with zeros before and converted after.
    """
    assert x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0, x.shape
    y: Tensor = _Pool.apply(x)
    return y


class _Pool(torch.autograd.Function):
    """`pool` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pixels = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        top = torch.maximum(torch.maximum(*pixels[:2]), torch.maximum(*pixels[2:]))
        winner = torch.full_like(top, 3, dtype=torch.uint8)
        for place in (2, 1, 0):
            winner = torch.where(pixels[place] == top, place, winner)
        ctx.save_for_backward(winner)
        return top

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        places = torch.arange(4, dtype=torch.uint8, device=winner.device).view(2, 1, 2, 1)
        won = winner[:, :, None, :, None] == places  # [N, H, 2, W, 2, C]
        grad = torch.where(won, grad_outputs[0][:, :, None, :, None], 0.0)
        return grad.flatten(3, 4).flatten(1, 2)


class _NormSilu(torch.autograd.Function):
    """SiLU(norm(x + bias)) with its gradient: x [N, H, W, C'] or phases, [C], [C].

    Channels that are none stay zeros, and phases come out at their places. The gradient of x has
    its type when that of the bias is summed, so that it is stored but once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
        y = _placed(x).float() + _widen(bias, x.shape[-1])
        scale = torch.rsqrt(y.square().sum(-1, keepdim=True) / len(bias) + NORM_EPS)
        ctx.save_for_backward(x, bias, gain, scale)
        return F.silu(y * scale * _widen(gain, x.shape[-1])).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, gain, scale = ctx.saved_tensors
        dout = grad_outputs[0]
        if x.ndim == PHASES:
            dout, scale = _taken_apart(dout), _taken_apart(scale)
        channels = len(bias)
        bias, gain = (_widen(part, x.shape[-1]) for part in (bias, gain))
        normed = (x.float() + bias) * scale
        y = normed * gain
        gate = torch.sigmoid(y)
        dy = gate * (1.0 + y * (1.0 - gate)) * dout.float()
        rows = tuple(range(x.ndim - 1))
        dgain = (dy * normed).sum(rows)
        dy = dy * gain
        mean = (dy * normed).sum(-1, keepdim=True) / channels
        dx = ((dy - normed * mean) * scale).to(x.dtype)  # laid out like the first factor: like x
        return dx, dx.sum(rows, dtype=torch.float32)[:channels], dgain[:channels]


def _phases(x: Tensor, layer: ImageLayer, width: int) -> Tensor:
    """Upsampling by 2 and a convolution, without bias: [N, H, W, *] -> [N, H, W, 2, 2, width]."""
    phases = layer.kernel.unflatten(0, (2, -1, 2)).transpose(1, 2)  # [2, 2, C, *]
    y = _convolve(x, _widen_outputs(phases, width).flatten(0, 2))
    return y.unflatten(-1, (2, 2, width))


def _placed(x: Tensor) -> Tensor:
    """Phases at their places, [N, H, W, 2, 2, C] -> [N, 2H, 2W, C]; anything else as it is."""
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2) if x.ndim == PHASES else x


def _taken_apart(x: Tensor) -> Tensor:
    """The other way: [N, 2H, 2W, C] -> [N, H, W, 2, 2, C]."""
    return x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution with zero padding to the same size: [N, H, W, C'], [O, C, k, k] -> [N, H, W, O].

    The kernel is laid out here, so that the gradient need not do it again.
    """
    inputs, size = kernel.shape[1:3]
    kernel = F.pad(kernel, (0, 0, 0, 0, 0, x.shape[-1] - inputs)).to(x.dtype)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=size // 2).permute(0, 2, 3, 1)


def _norm_silu(x: Tensor, layer: ImageLayer) -> Tensor:
    """SiLU(norm(x + bias)) in float32; channels that are none stay zeros."""
    y: Tensor = _NormSilu.apply(x, layer.bias, gain_of(layer))
    return y


def _width(channels: int, dtype: torch.dtype) -> int:
    """To how many channels maps of so many are widened; float32 takes no tensor cores."""
    return channels if dtype == torch.float32 else -(-channels // VECTOR) * VECTOR


def _widen(x: Tensor, width: int) -> Tensor:
    """Append zeros to the last axis."""
    return F.pad(x, (0, width - x.shape[-1]))


def _widen_outputs(kernel: Tensor, width: int) -> Tensor:
    """Append kernels of zeros: [..., C, in, k, k] -> [..., width, in, k, k]."""
    return F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, width - kernel.shape[-4]))
