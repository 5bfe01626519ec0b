"""The moving range of the returns, by which advantages are divided."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ReturnRange(NamedTuple):
    """Moving percentiles of the imagined returns; both start at 0, without bias correction."""

    low: Tensor
    """[] the lower percentile (the 5th)."""
    high: Tensor
    """[] the upper percentile (the 95th)."""

    @staticmethod
    def initial(device: torch.device | str = "cpu") -> ReturnRange:
        return ReturnRange(torch.zeros((), device=device), torch.zeros((), device=device))


def percentile(ordered: Tensor, percent: float) -> Tensor:
    """Read a percentile of sorted values [N] with linear interpolation."""
    position = percent / 100.0 * (ordered.shape[0] - 1)
    below = math.floor(position)
    above = min(below + 1, ordered.shape[0] - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)


def update_range(
    state: ReturnRange, returns: Tensor, rate: float, low: float, high: float
) -> ReturnRange:
    """Eq. 12: move both percentiles towards those of a batch of returns."""
    ordered = returns.detach().flatten().sort().values
    return ReturnRange(
        torch.lerp(state.low, percentile(ordered, low), rate),
        torch.lerp(state.high, percentile(ordered, high), rate),
    )


def return_scale(state: ReturnRange, floor: float) -> Tensor:
    """Eq. 12: S = max(floor, high - low)."""
    return (state.high - state.low).clamp(min=floor)
