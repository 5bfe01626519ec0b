"""How far a dream comes from what happened, and until when it is good: pure functions of numbers.

The horizon is the valid prediction time of forecasting: how many steps in a row the error stays
below half of how much the numbers themselves spread (NRMSE 0.5; Vlachas et al., "Backpropagation
algorithms and reservoir computing in recurrent neural networks for the forecasting of complex
spatiotemporal dynamics", Neural Networks 126, 2020). Categories have no spread: nine in ten must be
right.

Legend: R sequences, T steps of a sequence, D numbers of an observation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
Flags = NDArray[np.bool_]

GOOD_SHARE = 0.5
"""Largest error of a good dream, as a share of the standard deviation of what happened."""
GOOD_CLASSES = 0.9
"""Smallest share of categories that are right in a good dream."""
STILL = 1e-6
"""Numbers that spread less than this share of their size do not move."""


class Horizon(NamedTuple):
    """Until when a dream is good."""

    good: int
    """Dreamed steps in a row, from the first one on, that are good."""
    judged: int
    """Dreamed steps before the episode ends, which the dream cannot know; 0: nothing to judge."""


def spread(real: Numbers) -> Numbers:
    """Standard deviation of each number over all sequences, [R, T, D] -> [D]; 0 if it stands
    still."""
    flat = real.reshape(-1, real.shape[-1]).astype(np.float64)
    deviation = flat.std(axis=0)
    return np.where(deviation > STILL * np.maximum(1.0, np.abs(flat).max(axis=0)), deviation, 0.0)


def dreamed_steps(is_first: Flags, context: int) -> slice:
    """The steps of a sequence [T] that are dreamed and belong to the episode that was seen."""
    ends = np.flatnonzero(is_first[context:])
    return slice(context, context + int(ends[0]) if len(ends) else len(is_first))


def error(real: Numbers, dreamed: Numbers, *, categories: bool = False) -> float:
    """Root mean square of the error, [T, D] both, or the share of categories that are wrong.

    NaN without a step.
    """
    if not real.size:
        return float("nan")
    if categories:
        return float((np.rint(dreamed) != real).mean())
    return float(np.sqrt(np.square(dreamed.astype(np.float64) - real).mean()))


def horizon(
    real: Numbers,
    dreamed: Numbers,
    spreads: Numbers,
    *,
    categories: bool = False,
) -> Horizon:
    """Judge the dreamed steps of an episode: [T, D] both, and the `spread` [D] of each number.

    Numbers that stand still say nothing about a dream and are left out; if all of them do, no step
    is judged.
    """
    if categories:
        fine = (np.rint(dreamed) == real).mean(axis=1) >= GOOD_CLASSES
    else:
        moving = spreads > 0
        if not moving.any():
            return Horizon(0, 0)
        off = (dreamed[:, moving].astype(np.float64) - real[:, moving]) / spreads[moving]
        fine = np.sqrt(np.square(off).mean(axis=1)) <= GOOD_SHARE
    bad = np.flatnonzero(~fine)
    return Horizon(int(bad[0]) if len(bad) else len(fine), len(fine))
