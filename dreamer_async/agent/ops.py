"""The operations that an update spends its time in, as PyTorch computes them.

Every layer computes through the `Ops` that it was given, and never asks where it runs. `PYTORCH` is
what the equations say, and what everybody else's operations are tested against. The loops made of
such operations are chosen likewise, in `backend`.

Here are the layers of the paper's networks: SiLU(RMSNorm(x W + b)), the block-diagonal product of
the recurrent network, and the convolutions. Sampling and losses come from `distributions` and
`losses`. `nets` holds the parameters of what is computed here.

Legend: N rows, I inputs, O outputs, G blocks, H x W pixels, C channels, h x w pixels and c channels
of the smallest image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer_async.agent import distributions, losses

NORM_EPS = 1e-4
"""Inside the root, and larger than usual, as in the official code."""


class Dense(NamedTuple):
    """One layer: SiLU(norm(x kernel + bias) * gain), or without a gain the linear part alone."""

    kernel: Tensor
    """[I, O]."""
    bias: Tensor
    """[O]."""
    gain: Tensor | None
    """[O]; only the last layer of a stack may lack it."""


class ImageLayer(NamedTuple):
    """One convolution and the gain of the norm that follows pooling or the pixel shuffle."""

    kernel: Tensor
    """[C, I, rows, columns]; in the decoder [2 rows * C * 2 columns, I, ...] (see `UpConv`)."""
    bias: Tensor
    """[C]."""
    gain: Tensor | None
    """[C]; None: no norm and no SiLU follow (the decoder's last layer)."""


class Ops(NamedTuple):
    """Who computes what; the function of the same name in `PYTORCH` documents each."""

    dense: Callable[[Tensor, Sequence[Dense]], Tensor]
    heads: Callable[[Tensor, Sequence[Dense], Sequence[Dense]], tuple[Tensor, ...]]
    block_linear: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    encode_images: Callable[[Tensor, Sequence[ImageLayer], torch.dtype], Tensor]
    decode_images: Callable[[Tensor, Sequence[ImageLayer]], Tensor]
    image_loss: Callable[[Tensor, Tensor], Tensor]
    sample_class: Callable[[Tensor, Tensor], Tensor]
    latent_losses: Callable[[Tensor, Tensor, float, float], losses.LatentLosses]
    twohot_mean: Callable[[Tensor, Tensor], Tensor]
    twohot_loss: Callable[..., Tensor]
    lambda_return: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dense(x: Tensor, layers: Sequence[Dense]) -> Tensor:
    """Apply a stack of layers to the last axis, in the type of x: [..., I] -> [..., O]."""
    for layer in layers:
        x = _linear(x, layer.kernel, layer.bias)
        if layer.gain is not None:
            x = F.silu(rms_norm(x, layer.gain))
    return x


def _linear(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    # One flat product: F.linear sometimes makes a small one per row of a 3-d input.
    y = torch.addmm(bias.to(x.dtype), x.reshape(-1, x.shape[-1]), kernel.to(x.dtype))  # [N, O]
    return y.view(*x.shape[:-1], y.shape[-1])  # [..., O]


def heads(x: Tensor, hidden: Sequence[Dense], outputs: Sequence[Dense]) -> tuple[Tensor, ...]:
    """Linear outputs of the same hidden layers: [..., I] -> [..., O] each, float32."""
    x = dense(x, hidden)
    return tuple(dense(x, [output]).float() for output in outputs)


def block_linear(x: Tensor, kernel: Tensor, bias: Tensor, shared: Tensor | None) -> Tensor:
    """Multiply blocks [G, N, *] and, without repeating it, an input [N, *] that all blocks share.

    kernel is [G, I, O], whose last rows are for what is shared, and bias [G * O]: [G, N, O].
    """
    blocks, inputs, outputs = kernel.shape
    assert x.shape[0] == blocks, (x.shape, kernel.shape)
    own, common = kernel.to(x.dtype).split([x.shape[-1], inputs - x.shape[-1]], 1)  # [G, *, O]
    y = torch.baddbmm(bias.to(x.dtype).view(blocks, 1, outputs), x, own)  # [G, N, O]
    return y if shared is None else torch.baddbmm(y, shared.expand(blocks, -1, -1), common)


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Root mean square norm of the last axis in float32, with a gain: x / sqrt(mean x^2 + eps)."""
    return F.rms_norm(x.float(), scale.shape, scale, NORM_EPS).to(x.dtype)


# -- images ------------------------------------------------------------------------------------


def convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolution with stride 1 and zero padding to the same size: [N, H, W, I] -> [N, H, W, O]."""
    kernel, bias = kernel.to(x.dtype), bias.to(x.dtype)
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2)
    return y.permute(0, 2, 3, 1)  # [N, O, H, W] -> [N, H, W, O], a view


def pool_norm_silu(x: Tensor, gain: Tensor) -> Tensor:
    """SiLU(norm(maximum of 2x2 pixels)): [N, 2H, 2W, C], [C] -> [N, H, W, C]."""
    x = F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)  # [N, H, W, C]
    return F.silu(rms_norm(x, gain))


def phases(x: Tensor, layer: ImageLayer) -> Tensor:
    """The four output pixels of each input pixel beside each other: [N, H, W, I] -> [N, H, W, 4C].

    An image upsampled by two and convolved, without the upsampled image (see `nets.UpConv`).
    """
    # [2 rows * C * 2 columns, I, ...] -> [2 rows * 2 columns * C, I, ...]
    kernel = layer.kernel.unflatten(0, (2, -1, 2)).transpose(1, 2).flatten(0, 2)
    return convolve(x, kernel, layer.bias.to(x.dtype).repeat(4))


def shuffle_norm_silu(x: Tensor, gain: Tensor) -> Tensor:
    """SiLU(norm) of the phases of each pixel, at their places: [N, H, W, 4C] -> [N, 2H, 2W, C]."""
    return F.silu(rms_norm(pixel_shuffle(x), gain))


def pixel_shuffle(x: Tensor) -> Tensor:
    """Put the four phases of each pixel at their places: [N, H, W, 4C] -> [N, 2H, 2W, C]."""
    rows, height, width, channels = x.shape
    # [N, H, W, 2 rows, 2 columns, C] -> [N, H, 2 rows, W, 2 columns, C]
    x = x.reshape(rows, height, width, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(rows, 2 * height, 2 * width, channels // 4)


def gain_of(layer: ImageLayer) -> Tensor:
    """The gain [C] of a layer that has a norm."""
    assert layer.gain is not None, "only the decoder's last layer has none"
    return layer.gain


def encode_images(
    images: Tensor,
    layers: Sequence[ImageLayer],
    dtype: torch.dtype,
    pool: Callable[[Tensor, Tensor], Tensor] = pool_norm_silu,
) -> Tensor:
    """Bytes to features: [N, H, W, C] uint8 -> [N, h * w * c], in the order row, column, channel.

    Each layer is a convolution of x / 255 - 1/2 in `dtype`, pooling to half the resolution, norm
    and SiLU; the last three are `pool`.
    """
    x = images.to(dtype) / 255.0 - 0.5  # [N, H, W, C]
    for layer in layers:
        x = pool(convolve(x, layer.kernel, layer.bias), gain_of(layer))  # half the sides
    return x.flatten(1)  # [N, h * w * c]


def decode_images(
    x: Tensor,
    layers: Sequence[ImageLayer],
    shuffle: Callable[[Tensor, Tensor], Tensor] = shuffle_norm_silu,
) -> Tensor:
    """Features to images: [N, h, w, c] in the compute type -> [N, H, W, C] in (0, 1), float32.

    Each layer is the convolution of the image upsampled by two, then norm and SiLU, which `shuffle`
    does from the phases of pixels, or at the end the sigmoid.
    """
    *hidden, last = layers
    for layer in hidden:
        x = shuffle(phases(x, layer), gain_of(layer))  # twice the sides
    return torch.sigmoid(pixel_shuffle(phases(x, last)).float())


def image_loss(image: Tensor, target: Tensor) -> Tensor:
    """Eq. 5, -ln p(x | h, z) of images: sum of (image - target / 255)^2 of each row, [N].

    Both are [N, H, W, C], the image in (0, 1) and the target uint8.
    """
    assert image.shape == target.shape, (image.shape, target.shape)
    assert target.dtype == torch.uint8, target.dtype
    return (image - target.float() / 255.0).square().flatten(1).sum(-1)


# -- who computes --------------------------------------------------------------------------------

PYTORCH = Ops(
    dense, heads, block_linear, encode_images, decode_images, image_loss,
    distributions.sample_class, losses.latent_losses,
    distributions.twohot_mean, losses.twohot_loss, losses.lambda_return,
)  # fmt: skip


class Part(nn.Module):
    """A part of an agent, which computes through `ops`."""

    ops: Ops = PYTORCH


def compute_with(module: nn.Module, ops: Ops) -> None:
    """Let all parts of a module compute through these operations."""
    for part in module.modules():
        if isinstance(part, Part):
            part.ops = ops
