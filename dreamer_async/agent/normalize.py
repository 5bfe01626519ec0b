"""The moving range of the returns, by which advantages are divided: eq. 12.

The paper averages the range between two percentiles, this averages the percentiles, which is the
same. Read `losses` before; `actor_critic` puts both together.

Legend: N values, R imagined rows, H horizon.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
        """Both 0, so that the scale begins at its floor."""
        return ReturnRange(torch.zeros((), device=device), torch.zeros((), device=device))


class Ranks(NamedTuple):
    """What processes that learn as one exchange in an update; one alone exchanges nothing."""

    gather: Callable[[Tensor], Tensor] = lambda values: values
    """From this process's values [R, H] to those of all, one process after the other."""
    combine: Callable[..., tuple[list[Tensor], dict[str, Tensor]]] = lambda *both: both
    """From gradients and metrics of this process's batch to those of all batches as one."""


def percentile(ordered: Tensor, percent: float) -> Tensor:
    """Read a percentile of sorted values with linear interpolation: [N] -> []."""
    position = percent / 100.0 * (ordered.shape[0] - 1)
    below = math.floor(position)
    above = min(below + 1, ordered.shape[0] - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)


def update_range(
    state: ReturnRange, returns: Tensor, rate: float, low: float, high: float
) -> ReturnRange:
    """Eq. 12: move both percentiles towards those of a batch of returns [R, H]."""
    ordered = returns.detach().flatten().sort().values  # [R * H]
    return ReturnRange(
        torch.lerp(state.low, percentile(ordered, low), rate),
        torch.lerp(state.high, percentile(ordered, high), rate),
    )


def return_scale(state: ReturnRange, floor: float) -> Tensor:
    """Eq. 12, and the floor of eq. 11: S = max(floor, high - low), []."""
    return (state.high - state.low).clamp(min=floor)
