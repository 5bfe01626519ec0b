"""Objects that remember what they are doing, which two threads must not make them do at once."""

from __future__ import annotations

import threading


class OneCaller:
    """Lets one caller in at a time: `with` raises RuntimeError for whoever comes meanwhile.

    Waiting would not help a second one: its step would follow another's in the same episode.
    """

    def __init__(self, busy: str) -> None:
        """`busy` says what is being done and what would work."""
        self._busy = busy
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(f"one caller at a time: {self._busy}")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OneCaller], tuple[str]]:
        """Copies are called by others."""
        return OneCaller, (self._busy,)
