"""What numbers of an action are scaled to: the bounds of its Box, and a rule where it has none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

UNBOUNDED = 0.9
"""A bound beyond this share of the largest float is how some environments say that it is none."""
OWN = 1
"""Where there are no bounds, actions reach from minus this to this, as in the official code."""


def bounds_of(space: spaces.Box) -> list[tuple[Any, Any]]:
    """What actions are scaled to in each dimension: the bounds of the space where it has both.

    Where it lacks one, the interval of [-1, 1]'s length in it that lies nearest to [-1, 1].
    """
    bounds = []
    for low, high, below, above in zip(*_declared(space), strict=True):
        if not below:
            high = min(OWN, high) if above else OWN
            low = max(low, high - 2 * OWN)
        elif not above:
            low = max(-OWN, low)
            high = min(high, low + 2 * OWN)
        bounds.append((low, high))
    return bounds


def _declared(space: spaces.Box) -> tuple[list[Any], list[Any], list[bool], list[bool]]:
    """Bounds of each dimension, as Python's numbers, and whether they are more than a way to write
    that there is none: the infinite, and the largest of a type that is made to hold anything."""
    low, high = (bound.reshape(-1) for bound in (space.low, space.high))
    below, above = space.bounded_below.reshape(-1), space.bounded_above.reshape(-1)
    dtype: Any = space.dtype
    if dtype.kind == "f":
        largest = min(np.finfo(dtype).max, np.finfo(np.float32).max, key=float)
        limit = UNBOUNDED * float(largest)
        below, above = low > -limit, high < limit
    elif dtype.itemsize >= 4:
        info = np.iinfo(dtype)
        below, above = below & ((low > info.min) | (low == 0)), above & (high < info.max - 1)
    low, high = (bound.astype(int) if bound.dtype == bool else bound for bound in (low, high))
    return low.tolist(), high.tolist(), below.tolist(), above.tolist()


def inward(low: int, high: int) -> tuple[float, float]:
    """Whole numbers as the nearest real ones that are not outside of them."""
    first, last = float(low), float(high)
    return (
        np.nextafter(first, math.inf) if int(first) < low else first,
        np.nextafter(last, -math.inf) if int(last) > high else last,
    )


def remark_on(space: spaces.Box, bounds: list[tuple[Any, Any]]) -> str:
    """Say how many dimensions have bounds that are not the space's."""
    low, high, *_ = _declared(space)
    theirs = zip(low, high, strict=True)
    count = sum(mine != declared for mine, declared in zip(bounds, theirs, strict=True))
    if not count:
        return ""
    return f" (a bound is infinite in {count} of {len(low)} dimension{'s' * (len(low) > 1)})"
