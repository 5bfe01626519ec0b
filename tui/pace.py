"""How often the dashboard paints: less often where a trainer would have to make room for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SHARE = 0.02
"""Processor seconds per second that the dashboard allows itself where no processor is free."""
FREE = 0.6
"""Processors that have to be idle for it to paint whenever there is something new.

A learner with a thread on each of two leaves up to 0.4, one with a single thread at least 0.8.
"""
LONGEST_SECONDS = 3.0
"""Between two paints, whatever they cost."""


def idle_seconds() -> float:
    """Seconds that all processors together were idle since the machine started; 0: not known."""
    try:
        fields = Path("/proc/stat").read_bytes().split(b"\n", 1)[0].split()
        idle, waiting_for_disks = int(fields[4]), int(fields[5])
    except (OSError, ValueError, IndexError):
        return 0.0
    return (idle + waiting_for_disks) / os.sysconf("SC_CLK_TCK")


class Pace:
    """Says when to paint again, from what was used and what was idle since the last paint.

    A trainer that computes with all processors waits for all of them, so that what it loses is
    about what we use, at any niceness.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
        idle: Callable[[], float] = idle_seconds,
    ) -> None:
        self._clock, self._used, self._idle = clock, used, idle
        self.painted()

    def due(self) -> bool:
        """Whether it is time; always where a processor is free."""
        waited = self._clock() - self._painted_at
        used = self._used() - self._used_before
        idle = self._idle() - self._idle_before
        return used <= SHARE * waited or idle >= FREE * waited or waited >= LONGEST_SECONDS

    def painted(self) -> None:
        """Count from now on; what this paint costs is part of that."""
        self._painted_at = self._clock()
        self._used_before, self._idle_before = self._used(), self._idle()
