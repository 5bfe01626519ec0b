"""Where the rings of all environments stand, and which windows they hold.

Two counters per environment order everything: `reserved` is raised before a slot is overwritten,
`head` after the new step is complete. Both count steps ever added; step n is in slot n % capacity.
Windows are complete if their last step is, and whole as long as none of their steps was reserved
again: docs/replay.md has the protocol in full.

Legend: E environments, N some of them, R windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dreamer_async.replay.layout import Array, Indices


class Cursors:
    """Both counters of every environment, as views of the ring's file.

    The caller sees to it that one thread is in here at a time.
    """

    def __init__(self, counters: Array, capacity: int, length: int) -> None:
        """`counters` is [2, E], reserved and head; windows are `length` steps long."""
        self.reserved, self.head = counters
        self._capacity = capacity
        self._length = length

    def close(self) -> None:
        """Let go of the file."""
        self.reserved = self.head = np.empty(0, np.int64)

    # -- the writer's ------------------------------------------------------------------------

    def reserve(self, env: Indices) -> Indices:
        """Announce that the next slot of each environment will be overwritten: steps [N]."""
        step = self.head[env]
        self.reserved[env] = step + 1
        return step

    def publish(self, env: Indices, step: Indices) -> None:
        """Make the reserved steps visible."""
        self.head[env] = step + 1

    # -- what is there -----------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps ever added, over all environments."""
        return int(self.head.sum())

    @property
    def stored(self) -> Indices:
        """[E] steps that an environment's ring holds."""
        return np.minimum(self.head, self._capacity)

    def oldest(self, env: int) -> int:
        """The oldest step of an environment that no add may overwrite."""
        return max(0, int(self.reserved[env]) - self._capacity)

    def overwritten(self, env: Indices, start: Indices) -> NDArray[np.bool_]:
        """[R] whether a window's first step was reserved again, and with it perhaps more."""
        return start < self.reserved[env] - self._capacity

    def windows(self) -> tuple[Indices, Indices]:
        """The oldest step and the number of complete windows of each environment, each [E]."""
        oldest = np.maximum(self.reserved - self._capacity, 0)
        return oldest, np.maximum(self.head - self._length + 1 - oldest, 0)

    def windows_apart(self) -> int:
        """Complete windows that do not overlap, as many of each environment."""
        steps = self.head - self.windows()[0]
        return len(steps) * int(steps.min() // self._length)

    # -- choosing windows --------------------------------------------------------------------

    def uniform(self, count: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
        """Draw windows with the same probability: environments and first steps, each [R].

        Raises RuntimeError if there is none.
        """
        if count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        oldest, windows = self.windows()
        ends = np.cumsum(windows)
        if ends[-1] < 1:
            raise RuntimeError(f"no environment has {self._length} steps to sample yet")
        pick = rng.integers(ends[-1], size=count)
        env = np.searchsorted(ends, pick, side="right")
        return env, oldest[env] + pick - (ends[env] - windows[env])

    def newest(self, count: int) -> tuple[Indices, Indices]:
        """The last window of each environment, then those before them: each [R].

        Raises RuntimeError if there are fewer that do not overlap.
        """
        turn, env = np.divmod(np.arange(count), len(self.head))
        start = self.head[env] - (turn + 1) * self._length
        if (start < self.windows()[0][env]).any():
            raise RuntimeError(f"there are fewer than {count} windows that do not overlap")
        return env, start
