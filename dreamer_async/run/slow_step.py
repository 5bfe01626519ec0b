"""Steps of a start that may take long: said when they do, so that nobody looks at silence.

What is said goes to stderr, which is the run's log where a dashboard is in front; that shows the
log's last line until the trainer's first event.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SILENT_SECONDS = 2.0


@contextmanager
def slow_step(what: str, seconds: float | None = None) -> Iterator[None]:
    """Say `what` is being done, once it has taken a while."""
    wait = SILENT_SECONDS if seconds is None else seconds
    timer = threading.Timer(wait, _say, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(what: str) -> None:
    try:
        print(f"{what} ...", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # nobody listens: the start goes on
        return
