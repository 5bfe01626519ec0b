"""What is known of recorded steps before they are read, whatever kind of file they lie in.

Legend: T steps of a recording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OWN = ("action", "reward", "is_first", "is_last", "is_terminal", "discount")
"""Keys that are no observations."""
PASSED_OVER = ("stepid", "consec", "reset", "logprob")
"""Keys that others store beside them; so are those that begin with these:"""
PASSED_OVER_BEGINNINGS = ("log_", "log/", "dyn/", "enc/", "dec/", "policy_")


@dataclass(frozen=True)
class Recording(ABC):
    """Steps in a row: an episode, or a piece of a stream of them."""

    name: str
    """What messages call it."""
    steps: int
    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """{key: (shape without time, type)}."""

    @property
    def observations(self) -> list[str]:
        """Keys that can be observations."""
        return [name for name in self.arrays if name not in OWN and not is_passed_over(name)]

    @abstractmethod
    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Those arrays, [T, *], that it has; ConfigError if it cannot be read."""


def is_passed_over(name: str) -> bool:
    """Whether a key is known to be neither an observation nor needed."""
    return name in PASSED_OVER or name.startswith(PASSED_OVER_BEGINNINGS)
