"""The mean of runs along their way, and how far it may be trusted.

Legend: R runs, T points of a curve, K bootstrap samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLES = 2_000
LEVEL = 0.95
"""Of the intervals."""
ENDS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
"""Their quantiles."""


class MeanBand(NamedTuple):
    """A mean and its interval, which a single run has not: both ends are its mean then."""

    mean: Array
    """[T]."""
    low: Array
    """[T]."""
    high: Array
    """[T]."""


def band(curves: Array, *, seed: int = 0) -> MeanBand:
    """Mean of runs at each point and its bootstrap interval of percentiles: [R, T].

    Runs are drawn whole, with replacement, so that one sample is one set of runs.
    """
    middle = curves.mean(axis=0)
    if len(curves) < 2:
        return MeanBand(middle, middle, middle)
    runs = len(curves)
    drawn = np.random.default_rng(seed).integers(runs, size=(SAMPLES, runs))
    counts = (drawn[..., None] == np.arange(runs)).sum(axis=1)  # [K, R]
    low, high = np.quantile(counts @ curves / runs, ENDS, axis=0)
    return MeanBand(middle, low, high)
