"""Signals that ask a process to end: the first asks, the second insists."""

from __future__ import annotations

import signal
import time

ECHO = 0.5
"""Seconds in which the same signal again is not a second wish: timeout(1) sends each one to its
child and then to the whole group."""


def heeded() -> list[int]:
    """Signals that ask this process to end; nohup keeps SIGHUP ignored."""
    asking = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    return [number for number in asking if signal.getsignal(number) is not signal.SIG_IGN]


class Wishes:
    """The first signal that was heard, and whether others insist."""

    def __init__(self) -> None:
        self.first = 0
        """Its number; 0 for none yet."""
        self.since = 0.0
        """When it was heard, as time.monotonic has it."""

    def insists(self, number: int, echo: float = ECHO) -> bool:
        """Hear a signal; whether it is neither the first nor the same within `echo` seconds."""
        now = time.monotonic()
        if not self.first:
            self.first, self.since = number, now
            return False
        return number != self.first or now - self.since >= echo
