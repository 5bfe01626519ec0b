"""Printing for somebody who may not read: a full pipe, a terminal that is held by ctrl+s."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from typing import TextIO

ROOM = 1000
"""Lines that wait for whoever reads them; further ones are dropped."""
LAST_SECONDS = 1.0
"""How long the last lines may take."""


class Output:
    """Writes from a thread of its own, so that nobody who prints ever waits.

    What finds no room is dropped, and how much that was is said as soon as somebody reads again.
    Past the stream: a write that hangs in it would keep the interpreter from ending.
    """

    def __init__(self, stream: TextIO, room: int = ROOM) -> None:
        self.dropped = 0
        """Texts that found no room since it was last said."""
        self._stream, self._room = stream, room
        self._texts: deque[str] = deque()
        self._news = threading.Condition()
        self._closed = False
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        self._thread = threading.Thread(target=self._serve, name="output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Let the thread write a text, if there is room."""
        with self._news:
            if len(self._texts) < self._room:
                self._texts.append(text)
                self._news.notify()
            else:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: what can be written is written at once."""

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Wait a little for what is left to be written; further texts go nowhere."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join(seconds)

    def _serve(self) -> None:
        """Write until closed; a stream that is gone silences everything that follows."""
        with contextlib.suppress(OSError, ValueError):
            while text := self._next():
                _write(self._stream, text)

    def _next(self) -> str:
        """The next text, nothing after the last."""
        with self._news:
            self._news.wait_for(lambda: self._texts or self._closed)
            if not self._texts:
                return ""
            text = self._texts.popleft()
            if self.dropped and not self._texts:
                text += f"... {self.dropped} lines were dropped because nothing read them\n"
                self.dropped = 0
            return text


def _write(stream: TextIO, text: str) -> None:
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream that is no file
        stream.write(text)
        return
    data = text.encode(stream.encoding or "utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody who has the same file made it non-blocking
            select.select([], [descriptor], [])
