"""Encoder and decoder of eq. 3: observations to an embedding and back, images and vectors together.

The encoder is the part of q(z | h, x) that does not depend on h; `rssm.RSSM.posterior` is the rest.
The decoder is p(x | h, z), and its loss the first term of eq. 5: eq. 1 for vectors, squared
distance for images. Read `nets` before and `rssm` next.

Legend: N rows, E embed, U units, D deter, S stoch, K classes, G blocks, H x W pixels, C channels of
all images, h x w pixels of the smallest image (1/16), 4d its channels (d depth, 4 the last of the
default multipliers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer_async.agent.distributions import categorical_loss, onehot, symlog, symlog_mse
from dreamer_async.agent.nets import (
    MLP,
    BlockLinear,
    Conv,
    Linear,
    RMSNorm,
    UpConv,
    add_stack,
    dense_layers,
    to_blocks,
)
from dreamer_async.agent.ops import Part
from dreamer_async.config import ModelConfig
from dreamer_async.envs.spec import check_observations

if TYPE_CHECKING:
    from dreamer_async.envs.spec import ObsSpec

Obs = Mapping[str, Tensor]


class Encoder(Part):
    """embed = concat(vector features, image features): {key: [N, *]} -> [N, E]."""

    def __init__(self, obs: Mapping[str, ObsSpec], config: ModelConfig) -> None:
        super().__init__()
        check_observations(obs, len(config.multipliers))
        self.obs = dict(obs)
        self.vectors = sorted(key for key, spec in obs.items() if not spec.is_image)
        self.images = sorted(key for key, spec in obs.items() if spec.is_image)
        self.width = 0
        self.conv_dtype: torch.dtype | None = None
        """Compute type of the convolutions; None is that of everything else."""
        self.mlp: list[tuple[Linear, RMSNorm]] = []
        self.cnn: list[tuple[Conv, RMSNorm]] = []
        if self.vectors:
            names = [(f"mlp{i}", f"mlp{i}norm") for i in range(config.encoder_layers)]
            width = sum(vector_width(obs[key]) for key in self.vectors)
            self.mlp = add_stack(self, names, width, config.units)
            self.width += config.units
        if self.images:
            self._add_cnn(sum(obs[key].shape[-1] for key in self.images), config)
            rows, cols = small_resolution(obs[self.images[0]], config)
            self.width += rows * cols * config.depth * config.multipliers[-1]

    def forward(self, obs: Obs, dtype: torch.dtype) -> Tensor:
        outs = []  # vectors [N, U], images [N, h * w * 4d]
        if self.vectors:
            outs.append(self.ops.dense(self.flat_vectors(obs).to(dtype), dense_layers(self.mlp)))
        if self.images:
            outs.append(self._encode_images(obs, dtype))
        return torch.cat(outs, -1)  # [N, E]

    def flat_vectors(self, obs: Obs) -> Tensor:
        """Symlog floats and one-hot integers, sorted by key: [N, inputs] float32."""
        parts = [flat_vector(obs[key], self.obs[key]) for key in self.vectors]
        return torch.cat(parts, -1)

    def _encode_images(self, obs: Obs, dtype: torch.dtype) -> Tensor:
        first, *others = [obs[key] for key in self.images]
        # Joining is slow, three bytes at a time.
        images = torch.cat([first, *others], -1) if others else first  # [N, H, W, C]
        layers = [conv.image_layer(norm) for conv, norm in self.cnn]
        return self.ops.encode_images(images, layers, self.conv_dtype or dtype).to(dtype)

    def _add_cnn(self, inputs: int, config: ModelConfig) -> None:
        for i, multiplier in enumerate(config.multipliers):
            outputs = config.depth * multiplier
            self.cnn.append((Conv(inputs, outputs, config.kernel), RMSNorm(outputs)))
            self.add_module(f"cnn{i}", self.cnn[i][0])
            self.add_module(f"cnn{i}norm", self.cnn[i][1])
            inputs = outputs


class VectorOutput(Part):
    """The output of one vector key, linear: symlog means [N, *] of floats, logits of integers."""

    def __init__(self, inputs: int, spec: ObsSpec) -> None:
        super().__init__()
        self.spec = spec
        name = "logits" if spec.classes else "pred"
        self.out = [Linear(inputs, vector_width(spec))]
        self.add_module(name, self.out[0])

    def forward(self, x: Tensor) -> Tensor:
        y = self.out[0](x).float()  # [N, U] -> [N, *]
        return y.unflatten(-1, (-1, self.spec.classes)) if self.spec.classes else y

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Eq. 5, -ln p(x | h, z) of each row: eq. 1 for floats, cross entropy for integers, [N]."""
        target = target.reshape(target.shape[0], -1)  # [N, *]
        if self.spec.classes:
            return categorical_loss(output, target).sum(-1)
        return symlog_mse(output, target)


class Decoder(Part):
    """p(x | h, z) of eq. 3: images in (0, 1), vectors in symlog space."""

    def __init__(self, obs: Mapping[str, ObsSpec], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_dtype: torch.dtype | None = None
        """Compute type of the convolutions; None is that of everything else."""
        self.vectors = [key for key, spec in obs.items() if not spec.is_image]
        self.images = [key for key, spec in obs.items() if spec.is_image]
        self.channels = [obs[key].shape[-1] for key in self.images]
        latent = config.stoch * config.classes
        if self.vectors:
            self.mlp = MLP(latent + config.deter, config.units, config.decoder_layers)
            self.vec = nn.Module()
            self.outputs = {key: VectorOutput(config.units, obs[key]) for key in self.vectors}
            for key, output in self.outputs.items():
                self.vec.add_module(module_name(key), output)
        if self.images:
            self._add_images(small_resolution(obs[self.images[0]], config), latent)

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        """[N, D], [N, S, K] -> {key: [N, H, W, C] image or [N, *] output}, float32."""
        stoch = stoch.flatten(-2)  # [N, S * K]
        outs: dict[str, Tensor] = {}
        if self.vectors:
            x = self.mlp(torch.cat([stoch, deter], -1))  # [N, U]; z first, unlike feat
            outs.update({key: self.outputs[key](x) for key in self.vectors})
        if self.images:
            image = self._decode_images(deter, stoch)  # [N, H, W, C] in (0, 1)
            # The gradient of a split is a slow join, even of one part.
            parts = image.split(self.channels, -1) if len(self.images) > 1 else [image]
            outs.update(zip(self.images, parts, strict=True))
        return outs

    def loss(self, outs: Mapping[str, Tensor], obs: Obs) -> dict[str, Tensor]:
        """Eq. 5, -ln p(x | h, z) of each row: {key: [N]}; images sum over all pixels."""
        losses = {key: self.outputs[key].loss(outs[key], obs[key]) for key in self.vectors}
        for key in self.images:
            losses[key] = self.ops.image_loss(outs[key], obs[key])
        return losses

    def _decode_images(self, deter: Tensor, stoch: Tensor) -> Tensor:
        blocks, (rows, cols) = self.config.block_space, self.resolution
        x0 = self.sp0(to_blocks(deter, blocks))  # [G, N, h * w * 4d/G]
        x0 = x0.unflatten(-1, (rows, cols, -1)).permute(1, 2, 3, 0, 4).flatten(-2)  # [N, h, w, 4d]
        x1 = self.sp2(F.silu(self.sp1norm(self.sp1(stoch)))).unflatten(-1, (rows, cols, -1))
        x = F.silu(self.spnorm(x0 + x1))  # [N, h, w, 4d]
        x = x.to(self.conv_dtype or x.dtype)
        layers = [conv.image_layer(norm) for conv, norm in self.cnn]
        return self.ops.decode_images(x, [*layers, self.imgout.image_layer(None)])

    def _add_images(self, resolution: tuple[int, int], latent: int) -> None:
        config = self.config
        depths = [config.depth * multiplier for multiplier in config.multipliers]  # 2d 3d 4d 4d
        config.check_images()
        self.resolution = resolution
        width = resolution[0] * resolution[1] * depths[-1]
        self.sp0 = BlockLinear(config.deter, width, config.block_space)
        self.sp1, self.sp1norm = Linear(latent, 2 * config.units), RMSNorm(2 * config.units)
        self.sp2, self.spnorm = Linear(2 * config.units, width), RMSNorm(depths[-1])
        self.cnn: list[tuple[UpConv, RMSNorm]] = []
        inputs = depths[-1]
        for i in reversed(range(len(depths) - 1)):
            self.cnn.append((UpConv(inputs, depths[i], config.kernel), RMSNorm(depths[i])))
            self.add_module(f"conv{i}", self.cnn[-1][0])
            self.add_module(f"conv{i}norm", self.cnn[-1][1])
            inputs = depths[i]
        self.imgout = UpConv(inputs, sum(self.channels), config.kernel)


def small_resolution(spec: ObsSpec, config: ModelConfig) -> tuple[int, int]:
    """h and w: rows and columns after all pooling stages."""
    scale = 2 ** len(config.multipliers)
    return spec.shape[0] // scale, spec.shape[1] // scale


def vector_width(spec: ObsSpec) -> int:
    """Numbers that one vector observation becomes: classes are one-hot."""
    size = 1
    for side in spec.shape:
        size *= side
    return size * max(1, spec.classes)


def flat_vector(x: Tensor, spec: ObsSpec) -> Tensor:
    """Symlog of floats or one-hot of integers, missing values as zeros: [N, *] -> [N, width].

    Missing are -inf in floats and -1 in integers.
    """
    if spec.classes:
        return onehot(x, spec.classes, torch.float32).reshape(x.shape[0], -1)
    x = symlog(x.float()).reshape(x.shape[0], -1)  # [N, width]
    return torch.where(x == float("-inf"), 0.0, x)


def module_name(key: str) -> str:
    """Turn an observation key into a legal module name."""
    name = key.replace(".", "-") or "-"
    return f"{name}-" if hasattr(nn.Module(), name) else name
