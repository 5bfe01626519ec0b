"""How often the dashboard paints: less often where a trainer would have to make room for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SHARE = 0.02
"""Processor seconds per second that the dashboard allows itself where all processors have work."""
LONGEST_SECONDS = 3.0
"""Between two paints, whatever they cost."""


def processors_busy() -> bool:
    """Whether there was hardly a free processor during the last minute."""
    return os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)


class Pace:
    """Says when to paint again, from what the dashboard used since it painted last.

    A process that computes with all processors waits for all of them, so that what it loses is
    about what we use, at any niceness.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
        busy: Callable[[], bool] = processors_busy,
    ) -> None:
        self._clock, self._used, self._busy = clock, used, busy
        self.painted()

    def due(self) -> bool:
        """Whether it is time; always where a processor is free."""
        waited = self._clock() - self._painted_at
        used = self._used() - self._used_before
        return used <= SHARE * waited or waited >= LONGEST_SECONDS or not self._busy()

    def painted(self) -> None:
        """Count from now on; what this paint costs is part of that."""
        self._painted_at, self._used_before = self._clock(), self._used()
