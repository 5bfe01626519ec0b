"""Atari's images scaled as the official code does it: Pillow's bilinear filter, then gray.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreamer_async.envs.spec import ObsSpec

GRAY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue."""


@dataclass(frozen=True)
class ExactImage:
    """Images of 210x160 RGB as they are drawn, to square ones."""

    size: int
    gray: bool

    @property
    def name(self) -> str:
        return "image"

    @property
    def spec(self) -> ObsSpec:
        return ObsSpec((self.size, self.size, 1 if self.gray else 3), "uint8")

    def read(self, obs: Any) -> NDArray[np.uint8]:
        """Convert a batch: [N, 3, 210, 160] to [N, *spec.shape]."""
        return np.stack([self._scale(frame) for frame in obs.transpose(0, 2, 3, 1)])

    def _scale(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(np.ascontiguousarray(frame))
        scaled = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return (scaled @ GRAY).astype(np.uint8)[..., None] if self.gray else scaled
