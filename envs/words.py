"""What worker processes print, passed on to our standard error line by line.

A terminal obeys escape sequences, and what an environment prints may come from anywhere, so that
workers get no terminal. Their words go through `sys.stderr` of this process, as does all else that
it prints, and whoever cleans that cleans them.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

LONGEST_LINE = 8192
"""Bytes that are passed on at a time where no newline comes."""
DRAIN_SECONDS = 1.0
"""How long the last words may take; processes that workers leave behind may keep the pipe open."""


class Words:
    """A pipe that workers print into, and a thread that reads it."""

    def __init__(self) -> None:
        ours, self.fd = os.pipe()
        self._thread = threading.Thread(target=_pass_on, args=(ours,), name="words", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the last words; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._thread.join(DRAIN_SECONDS)


def _pass_on(pipe: int) -> None:
    """Read until every writer is gone."""
    with open(pipe, "rb") as lines:
        while line := lines.readline(LONGEST_LINE):
            with suppress(OSError, ValueError):  # nobody listens any more: training goes on
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()
