"""Many tensors behind each other in one, so that one kernel does what hundreds would.

Legend: R rows, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WIDTH = 256
"""Numbers in a row; every tensor begins a new one."""


class Flat:
    """Where each of some tensors lies in [R, W]; what is left of its last row is zero."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._rows = [-(-tensor.numel() // WIDTH) for tensor in tensors]
        device = tensors[0].device
        rows = torch.tensor(self._rows, device=device)
        # Without its size, the result waits for the device to count its rows.
        self.owner = torch.arange(len(tensors), device=device).repeat_interleave(
            rows, output_size=sum(self._rows)
        )
        """[R] which tensor a row belongs to."""

    def zeros(self) -> Tensor:
        """Memory for all of them: [R, W] float32."""
        return torch.zeros(len(self.owner), WIDTH, device=self.owner.device)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each of the tensors in [R, W], in its own shape."""
        parts = zip(flat.split(self._rows), self._shapes, strict=True)
        return [part.view(-1)[: shape.numel()].view(shape) for part, shape in parts]
