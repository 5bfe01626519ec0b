"""The convolutional encoder and decoder as one native function each way (`encoder.cpp`,
`decoder.cpp`).

Legend: N images, H x W resolution, C channels, P points and K taps along a direction of a
Winograd convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamer_async.agent import ops
from dreamer_async.agent.ops import ImageLayer
from dreamer_async.fast.native import library
from dreamer_async.fast.native.feature_maps import pool_norm_silu, shuffle_norm_silu
from dreamer_async.fast.native.library import floats, is_float32, padded, pointer, remember
from dreamer_async.fast.native.structs import ConvLayer

PIECES = 16
"""A backward pass adds up its gradients in at most so many pieces.

They do not depend on the number of threads, so neither does the result.
"""
KERNELS = (3, 5)
"""Sizes of kernels that the native functions know."""
PHASE_KERNELS = (3,)
"""Of those that the decoder's become, as every pixel that is upsampled sees a part of them."""
OUTPUT_PANEL = 4
"""Outputs whose kernels lie side by side, as in `winograd_gemm.h`."""
POINTS = {
    3: ((0.0, 1.0, -1.0, 2.0, -2.0), (0.25, -1 / 6, -1 / 6, 1 / 24, 1 / 24)),
    5: (
        (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5),
        (1.0, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 4 / 45, 4 / 45),
    ),
}
"""For K taps: where polynomials are evaluated, besides at infinity, and how much each value counts.

The transforms of `winograd.h` belong to these points.
"""


def encode_images(images: Tensor, layers: Sequence[ImageLayer], dtype: torch.dtype) -> Tensor:
    """`ops.encode_images`; of other types or sizes all but the convolutions is native."""
    if dtype == torch.float32 and _fit(layers, KERNELS):
        return encode(images, layers)
    return ops.encode_images(images, layers, dtype, pool_norm_silu)


def decode_images(x: Tensor, layers: Sequence[ImageLayer]) -> Tensor:
    """`ops.decode_images`, likewise."""
    if is_float32(x) and _fit(layers, PHASE_KERNELS):
        return decode(x, layers)
    return ops.decode_images(x, layers, shuffle_norm_silu)


def _fit(layers: Sequence[ImageLayer], known: Sequence[int]) -> bool:
    """Whether native functions can do all of it: float32 layers, kernels of a known size."""
    tensors = [tensor for layer in layers for tensor in layer if tensor is not None]
    sizes = {tuple(layer.kernel.shape[2:]) for layer in layers}
    return is_float32(*tensors) and len(sizes) == 1 and sizes <= {(n, n) for n in known}


def encode(images: Tensor, layers: Sequence[ImageLayer]) -> Tensor:
    """Bytes to features: [N, H, W, C] uint8 -> [N, h * w * c], in the order row, column, channel.

    Each layer is a convolution of x / 255 - 1/2, pooling to half the resolution, norm and SiLU.
    """
    assert images.dtype == torch.uint8, images.dtype
    tensors = [tensor for layer in layers for tensor in layer]
    if _gradient_wanted(tensors):
        y: Tensor = _Encoder.apply(images.contiguous(), *tensors)
        return y
    strips = strips_of(images.shape[0], images.shape[1], len(layers))
    return _encode(images.contiguous(), _Layers(layers), strips)


def decode(features: Tensor, layers: Sequence[ImageLayer]) -> Tensor:
    """Features to images: [N, h, w, c] -> [N, H, W, C] in (0, 1), both float32.

    Each layer is the convolution of the image upsampled by two, then norm and SiLU, or at the end
    the sigmoid.
    """
    tensors = [tensor for layer in layers for tensor in layer]
    if _gradient_wanted([features, *tensors]):
        y: Tensor = _Decoder.apply(features.contiguous(), *tensors)
        return y
    return _decode(features.contiguous(), _Layers(layers))


def _gradient_wanted(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a backward pass may come, for which the maps of all layers would be kept."""
    wanted = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return wanted and torch.is_grad_enabled()


def image_loss(image: Tensor, target: Tensor) -> Tensor:
    """`ops.image_loss`."""
    if not is_float32(image):
        return ops.image_loss(image, target)
    assert image.shape == target.shape, (image.shape, target.shape)
    assert target.dtype == torch.uint8, target.dtype
    loss: Tensor = _SquaredError.apply(image.contiguous(), target.contiguous())
    return loss


# -- kernels --------------------------------------------------------------------------------------


@cache
def kernel_transform(taps: int) -> Tensor:
    """G of Winograd's convolutions, values of polynomials at all points: [P, K]."""
    points, scales = POINTS[taps]
    rows = [[scale * x**k for k in range(taps)] for x, scale in zip(points, scales, strict=True)]
    return torch.tensor([*rows, [0.0] * (taps - 1) + [1.0]])


def transform_kernel(kernel: Tensor) -> Tensor:
    """G g G^T of a kernel [out, in, K, K], in panels: [out / panel, P * P, in, panel]."""
    values = kernel_transform(kernel.shape[3])
    at_points = torch.einsum("pr,qk,oirk->pqio", values, values, kernel).flatten(0, 1)
    filled = F.pad(at_points, (0, -kernel.shape[0] % OUTPUT_PANEL))
    return filled.unflatten(-1, (-1, OUTPUT_PANEL)).permute(2, 0, 1, 3).contiguous()


def transform_transposed_kernel(kernel: Tensor) -> Tensor:
    """The same of the kernel [in, out, K, K], which the gradient of the inputs takes."""
    return transform_kernel(kernel.transpose(0, 1))


def _kernel_gradient(sums: Tensor, kernel: Tensor) -> Tensor:
    """[pieces, P, P, in, out filled up] to that of a kernel [out, in, K, K]."""
    total, values = sums.sum(0)[..., : kernel.shape[0]], kernel_transform(kernel.shape[3])
    by_rows = torch.einsum("pr,pqio->qrio", values, total)
    return torch.einsum("qk,qrio->oirk", values, by_rows)


# -- native functions -----------------------------------------------------------------------------


class _Layers:
    """Layers as the native functions read them, with all memory that they point to."""

    def __init__(self, layers: Sequence[ImageLayer]) -> None:
        self.layers = layers
        self.structures = (ConvLayer * len(layers))()
        self.held: list[Tensor] = []
        self.sums: list[tuple[Tensor, Tensor]] = []
        for s, layer in zip(self.structures, layers, strict=True):
            s.inputs, s.outputs = layer.kernel.shape[1], layer.bias.shape[0]
            s.kernel = self._hold(remember(layer.kernel, "transformed", transform_kernel))
            s.bias = floats(layer.bias)
            s.gain = floats(layer.gain)

    @property
    def taps(self) -> int:
        """Taps of a row of all kernels."""
        return self.layers[0].kernel.shape[3]

    def keep(self, images: int, planes: Sequence[int], pooling: bool) -> None:
        """Room for what the backward pass needs; floats of a channel behind each layer."""
        groups = -(-images // library.functions().images_of_group())
        for s, layer, plane in zip(self.structures, self.layers, planes, strict=True):
            if layer.gain is not None:
                pre_norm = torch.empty(groups, s.outputs, plane)
                s.pre_norm = self._hold(pre_norm)
                if pooling:
                    winner = torch.empty(pre_norm.shape, dtype=torch.uint8)
                    self.held.append(winner)
                    s.winner = winner.data_ptr()

    def prepare_backward(self, pieces: int, first_too: bool) -> None:
        """Room for gradients, and the kernels that those of the inputs need."""
        for i, (s, layer) in enumerate(zip(self.structures, self.layers, strict=True)):
            outputs, inputs, _, taps = layer.kernel.shape
            dkernel = torch.zeros(pieces, taps + 3, taps + 3, inputs, padded(outputs))
            dvectors = torch.zeros(2, pieces, s.outputs)
            self.sums.append((dkernel, dvectors))
            s.dkernel, s.dbias, s.dgain = map(floats, (dkernel, *dvectors))
            if i or first_too:
                kernel = remember(layer.kernel, "transposed", transform_transposed_kernel)
                s.transposed = self._hold(kernel)

    def gradients(self) -> list[Tensor | None]:
        """Of kernel, bias and gain of each layer."""
        grads: list[Tensor | None] = []
        for layer, (dkernel, dvectors) in zip(self.layers, self.sums, strict=True):
            dbias, dgain = dvectors.sum(1)
            grads += [_kernel_gradient(dkernel, layer.kernel), dbias]
            grads.append(dgain if layer.gain is not None else None)
        return grads

    def _hold(self, tensor: Tensor) -> int | None:
        self.held.append(tensor)
        return floats(tensor)


def _planes(height: int, width: int, scales: Sequence[float]) -> list[int]:
    """Floats of a channel of a group of images at each scale, as in `maps.h`."""
    plane = library.functions().floats_of_plane
    return [plane(int(height * scale), int(width * scale)) for scale in scales]


def _grouped(tensors: Sequence[Tensor | None]) -> list[ImageLayer]:
    """(kernel, bias, gain) of each layer."""
    return [ImageLayer(*tensors[i : i + 3]) for i in range(0, len(tensors), 3)]  # type: ignore[arg-type]


def _encode(images: Tensor, layers: _Layers, strips: int = 1) -> Tensor:
    count, (rows, height, width, _) = len(layers.layers), images.shape
    pixels = (height >> count) * (width >> count)
    out = torch.empty(rows, pixels * layers.layers[-1].bias.shape[0])
    library.functions().encode_images(
        layers.structures, count, layers.taps, height // strips, width, strips,
        rows * strips, pointer(images), pointer(out), library.threads(images.numel()),
    )  # fmt: skip
    return out


def strips_of(rows: int, height: int, count: int) -> int:
    """How many strips to cut each of so few images in that they would leave lanes empty.

    The native functions compute a vector of images at once. Each of `count` layers halves the
    height of a strip.
    """
    most, last = library.functions().images_of_group() // max(rows, 1), height >> count
    return max((n for n in range(1, most + 1) if last % n == 0), default=1)


class _Encoder(torch.autograd.Function):
    """The encoder with the gradients of its parameters."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, *tensors: Tensor | None) -> Tensor:
        layers = _Layers(_grouped(tensors))
        scales = [0.5 ** (i + 1) for i in range(len(layers.layers))]
        rows, height, width, _ = images.shape
        layers.keep(rows, _planes(height, width, scales), True)
        ctx.images, ctx.layers = images, layers
        return _encode(images, layers)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        images, layers = ctx.images, ctx.layers
        rows, height, width, _ = images.shape
        pieces = min(PIECES, rows)
        layers.prepare_backward(pieces, False)
        dy = grad_outputs[0].contiguous()
        library.functions().encode_images_backward(
            layers.structures, len(layers.layers), layers.taps, height, width,
            rows, pointer(images), pointer(dy), pieces, library.threads(images.numel()),
        )  # fmt: skip
        return None, *layers.gradients()


def _decode(features: Tensor, layers: _Layers) -> Tensor:
    count, (rows, height, width, _) = len(layers.layers), features.shape
    colours = layers.layers[-1].bias.shape[0]
    out = torch.empty(rows, height << count, width << count, colours)
    library.functions().decode_images(
        layers.structures, count, height, width, rows,
        pointer(features), pointer(out), library.threads(out.numel()),
    )  # fmt: skip
    return out


class _Decoder(torch.autograd.Function):
    """The decoder with its gradients."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *tensors: Tensor | None) -> Tensor:
        layers = _Layers(_grouped(tensors))
        scales = [2.0 ** (i + 1) for i in range(len(layers.layers))]
        rows, height, width, _ = features.shape
        layers.keep(rows, _planes(height, width, scales), False)
        ctx.layers = layers
        out = _decode(features, layers)
        ctx.save_for_backward(features, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (features, out), layers = ctx.saved_tensors, ctx.layers
        rows, height, width, _ = features.shape
        pieces = min(PIECES, rows)
        layers.prepare_backward(pieces, True)
        dfeatures, dy = torch.empty_like(features), grad_outputs[0].contiguous()
        library.functions().decode_images_backward(
            layers.structures, len(layers.layers), height, width, rows,
            pointer(features), pointer(out), pointer(dy), pointer(dfeatures),
            pieces, library.threads(dy.numel()),
        )  # fmt: skip
        return dfeatures, *layers.gradients()


class _SquaredError(torch.autograd.Function):
    """The loss of images with its gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(image, target)
        loss = image.new_empty(image.shape[0])
        _loss("image_loss", image, target, loss)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        image, target = ctx.saved_tensors
        dimage = torch.empty_like(image)
        _loss("image_loss_backward", image, target, grad_outputs[0].contiguous(), dimage)
        return dimage, None


def _loss(name: str, image: Tensor, *tensors: Tensor) -> None:
    size = image[0].numel()
    getattr(library.functions(), name)(
        image.shape[0], size, *map(pointer, (image, *tensors)),
        library.threads(image.numel()),
    )  # fmt: skip
