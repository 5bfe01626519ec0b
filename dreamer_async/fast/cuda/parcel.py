"""Arrays of several types side by side in one buffer: one copy moves all of them.

A copy between a GPU and its host takes ten microseconds however small it is, and where the host's
side is not pinned both wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes; kernels read whole vectors, and processors whole lines of a cache."""


class Field(NamedTuple):
    """One array."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Parcel:
    """The same arrays on the host, pinned if there is a GPU, and on a device."""

    def __init__(self, fields: Mapping[str, Field], device: torch.device) -> None:
        size = sum(_aligned(field.bytes) for field in fields.values())
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(size, dtype=torch.uint8, device=device)
        self.here = _views(self._host, fields)
        self.there = _views(self._device, fields)

    def send(self) -> None:
        """Copy all arrays to the device; the host does not wait for it."""
        self._device.copy_(self._host, non_blocking=True)

    def bring(self) -> None:
        """Copy all arrays to the host, which has to wait before it reads them."""
        self._host.copy_(self._device, non_blocking=True)


def _aligned(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED


def _views(buffer: Tensor, fields: Mapping[str, Field]) -> dict[str, Tensor]:
    views, start = {}, 0
    for name, field in fields.items():
        part = buffer[start : start + field.bytes]
        views[name] = part.view(field.dtype).view(field.shape)
        start += _aligned(field.bytes)
    return views
