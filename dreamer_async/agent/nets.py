"""The layers that everything is built from.

Parameters are float32 and each layer casts its own to the type of its input, so the compute
type is decided in one place (where the inputs enter) and there is no autocast. Kernels keep
the layout of the official code ([in, out], blocks [G, in, out]), except convolutions (OIHW).
Images stay NHWC between layers; a convolution only permutes the view.

Read `ops` before, which computes what these layers hold; `rssm`, `coders` and `heads` are made of
them.

Legend: N rows, I inputs, O outputs, G blocks, H x W pixels, k side of a convolution's kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dreamer_async.agent.ops import (
    Dense,
    ImageLayer,
    Part,
    convolve,
    phases,
    pixel_shuffle,
    rms_norm,
)

PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "mixed": (torch.float32, torch.bfloat16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16-dense": (torch.float32, torch.float32),
}
"""Compute types by name: of everything, and of convolutions.

What else bfloat16-dense means is up to the backend: its dense layers round what they multiply.
"""
TRUNCATED_STD = 1.1368
"""One over the standard deviation of a standard normal truncated to [-2, 2]."""


class Kernel(Part):
    """A weight and a bias with the official initialisation (see `initialize`)."""

    def __init__(
        self, shape: tuple[int, ...], bias: int, fan_in: int, outscale: float = 1.0
    ) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(shape))  # [I, O], [G, I/G, O/G] or [O, I, k, k]
        self.bias = nn.Parameter(torch.zeros(bias))  # [O]
        self.fan_in = fan_in
        self.outscale = outscale

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw the kernel: truncated normal with std outscale / sqrt(fan_in); zero the bias."""
        nn.init.trunc_normal_(self.kernel, 0.0, 1.0, -2.0, 2.0, generator=generator)
        self.kernel.mul_(self.outscale * TRUNCATED_STD / math.sqrt(self.fan_in))
        self.bias.zero_()


class Linear(Kernel):
    """y = x W + b over the last axis: [..., I] -> [..., O]."""

    def __init__(self, inputs: int, outputs: int, outscale: float = 1.0) -> None:
        super().__init__((inputs, outputs), outputs, inputs, outscale)

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.dense(x, [self.layer()])

    def layer(self, norm: RMSNorm | None = None) -> Dense:
        """This layer and what follows it."""
        return Dense(self.kernel, self.bias, None if norm is None else norm.scale)


class BlockLinear(Kernel):
    """A block-diagonal linear layer, blocks first: [G, N, I/G] -> [G, N, O/G].

    The last rows of every block may read an input that all blocks share. The initial scale
    follows the full input width, not the width of a block.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        assert inputs % blocks == 0 and outputs % blocks == 0, (inputs, outputs, blocks)
        super().__init__((blocks, inputs // blocks, outputs // blocks), outputs, inputs)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """Apply to blocks [G, N, *] and, without repeating it, to a shared input [N, *].

        Gives [G, N, O/G].
        """
        return self.ops.block_linear(x, self.kernel, self.bias, shared)

    def parts(self) -> tuple[Tensor, Tensor]:
        """Kernels of what blocks read of their own, [G, O/G, O/G], and of what all share, [*, O].

        For layers whose blocks read as much of their own as they give.
        """
        _, inputs, outputs = self.kernel.shape
        own, common = self.kernel.split([outputs, inputs - outputs], 1)  # [G, *, O/G]
        return own, common.transpose(0, 1).flatten(1)


def to_blocks(x: Tensor, blocks: int) -> Tensor:
    """View [N, I] as [G, N, I/G]."""
    return x.unflatten(-1, (blocks, -1)).transpose(0, 1)


def from_blocks(x: Tensor) -> Tensor:
    """Join [G, N, O/G] to [N, O]."""
    return x.transpose(0, 1).flatten(1)


class Conv(Kernel):
    """Convolution with stride 1 and zero padding: [N, H, W, I] -> [N, H, W, O]."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__((outputs, inputs, kernel, kernel), outputs, inputs * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.kernel, self.bias)

    def image_layer(self, norm: RMSNorm | None) -> ImageLayer:
        """This layer and what follows it."""
        return ImageLayer(self.kernel, self.bias, None if norm is None else norm.scale)


class UpConv(Conv):
    """Nearest upsampling by 2, then a convolution: [N, H, W, I] -> [N, 2H, 2W, O].

    Computed without the upsampled image: each of the four output phases is a smaller
    convolution of the small image, whose taps are sums of the kernel's taps. The result is
    the same up to rounding, with 36 products per input pixel instead of 100 (5x5 kernels).
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        taps = _phase_taps(kernel)  # [2 phases, taps, k]
        both = torch.einsum("pak,qbl->pqabkl", taps, taps)  # [2, 2, taps, taps, k, k]
        self.register_buffer("taps", both, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(phases(x, self.image_layer(None)))

    def image_layer(self, norm: RMSNorm | None) -> ImageLayer:
        """The smaller convolutions, and what follows them."""
        gain = None if norm is None else norm.scale
        return ImageLayer(self.phase_kernel().flatten(0, 2), self.bias, gain)

    def phase_kernel(self) -> Tensor:
        """Kernels of the four phases of each output: [2 rows, O, 2 columns, I, taps, taps]."""
        return torch.einsum("pqabkl,oikl->poqiab", self.taps, self.kernel)


class RMSNorm(Part):
    """Root mean square norm of the last axis in float32, with a gain."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))  # the gain, [O] of the layer before

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


class MLP(Part):
    """Hidden layers of (linear, norm, SiLU) on the last axis: [..., I] -> [..., O]."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.units = units
        names = [(f"linear{i}", f"norm{i}") for i in range(layers)]
        self.stack = add_stack(self, names, inputs, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.dense(x, dense_layers(self.stack))


def add_stack(
    owner: nn.Module, names: Sequence[tuple[str, str]], inputs: int, units: int
) -> list[tuple[Linear, RMSNorm]]:
    """Register hidden layers under names of the official code; return them in order."""
    stack = []
    for linear, norm in names:
        stack.append((Linear(inputs, units), RMSNorm(units)))
        owner.add_module(linear, stack[-1][0])
        owner.add_module(norm, stack[-1][1])
        inputs = units
    return stack


def dense_layers(stack: Sequence[tuple[Linear, RMSNorm]]) -> list[Dense]:
    """A stack of hidden layers as operations take it."""
    return [layer.layer(norm) for layer, norm in stack]


def lower(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep kernels and biases in a compute type from now on; norms stay in float32."""
    for layer in module.modules():
        if isinstance(layer, Kernel):
            layer.to(dtype)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every kernel of a module from a generator, in the order of registration."""
    for layer in module.modules():
        if isinstance(layer, Kernel):
            layer.initialize(generator)


def _phase_taps(kernel: int) -> Tensor:
    """Which small-image pixel each tap of each phase reads: [2 phases, taps, kernel]."""
    half = kernel // 2
    reach = (half + 1) // 2
    taps = torch.zeros(2, 2 * reach + 1, kernel)
    for phase in range(2):
        for offset in range(-half, half + 1):
            taps[phase, (phase + offset) // 2 + reach, offset + half] = 1.0
    return taps
