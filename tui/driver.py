"""A terminal at the end of a slow line: small frames, one at a time, and none after the last key.

Textual queues thirty writes and writes all of them before it leaves: over 8 kB/s that took half a
minute. Here a frame is drawn when the terminal has the one before, and what is not yet written
when the dashboard closes is thrown away.
"""

from __future__ import annotations

import os
import selectors
import termios
import threading
import time
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message
from textual.messages import TerminalSupportsSynchronizedOutput

from dreamer_async.tui.album import Album
from dreamer_async.tui.draw.kitty import NAME_QUESTION, QUESTION
from dreamer_async.tui.draw.sgr import lean
from dreamer_async.tui.graphics import DRAW_PLACEHOLDERS, Way
from dreamer_async.tui.replies import Listener, Replies

PIECE = 1024
"""Bytes that are written at once: what closing the dashboard has to wait for at most."""
AHEAD_BYTES = 4096
"""What may be on its way to the terminal when the next frame is drawn."""
PATIENCE_SECONDS = 5.0
"""How long a terminal that answers may take to do so; then one is believed to be lost."""
ABORT = "\x18\x1b\\\x1b[m"
"""CAN and ST: end a sequence or a string that was cut in two; and no style."""
ASK = "\x1b[?2026$p"
"""A question that Textual asks at its start, too, so that it understands every answer."""
AT_ONCE, ALL_OF_IT = "\x1b[?2026h", "\x1b[?2026l"
"""What is written between them is shown when all of it is there, by terminals that answer."""
LISTEN_SECONDS = 0.1
LATE_SECONDS = 0.5
"""After a start, as long as which a signal to continue is that of the start."""


class Outlet(threading.Thread):
    """Writes to a file descriptor in the background, and can forget what is not written yet."""

    def __init__(self, fd: int, empty: Callable[[], None]) -> None:
        """`empty` is called in this thread when all has been written."""
        super().__init__(daemon=True, name="dashboard-output")
        self._fd, self._empty = fd, empty
        self._pieces: deque[bytes] = deque()
        self._news = threading.Condition()
        self._stopping = False

    @property
    def pending(self) -> int:
        """Bytes that wait; the piece that is being written is not among them."""
        with self._news:
            return sum(map(len, self._pieces))

    def write(self, text: str) -> None:
        """Let a text be written; never waits."""
        data = text.encode("utf-8", "replace")
        with self._news:
            self._pieces += [data[i : i + PIECE] for i in range(0, len(data), PIECE)]
            self._news.notify()

    def forget(self) -> None:
        """Throw away what is not written, also what a pseudo-terminal holds for its reader."""
        with self._news:
            self._pieces.clear()
        with suppress(termios.error):  # no terminal, or none any more
            termios.tcflush(self._fd, termios.TCOFLUSH)

    def stop(self) -> None:
        """Write the rest and end."""
        with self._news:
            self._stopping = True
            self._news.notify()
        self.join()

    def run(self) -> None:
        while (piece := self._next()) is not None:
            try:
                while piece:
                    piece = piece[os.write(self._fd, piece) :]
            except OSError:
                continue  # the terminal is gone; the dashboard finds out by itself
            if not self.pending:
                self._empty()

    def _next(self) -> bytes | None:
        with self._news:
            self._news.wait_for(lambda: self._pieces or self._stopping)
            return self._pieces.popleft() if self._pieces else None


class LeanDriver(LinuxDriver):
    """Textual's driver of a terminal, which knows how far that is behind."""

    caught_up: Callable[[], None] | None = None
    """To be called in the loop when the terminal has all that was written."""
    _outlet: Outlet | None = None
    _on_way = 0
    """Bytes that were written since the terminal was known to have all."""
    _asked_at = 0.0
    """When a question was sent that is not answered yet; 0 without one."""
    _answers = False
    """Whether this terminal answers questions."""
    _started_at = 0.0
    """When application mode began last."""
    album: Album | None = None
    """The pictures of this terminal; None where there are none, or it has not said so yet."""
    pictured: Callable[[], None] | None = None
    """To be called in the loop when there is an album."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._way: Way = getattr(app, "way", Way.BLOCKS)
        self._replies = Replies()

    @property
    def behind(self) -> bool:
        """Whether so much is on its way that the next frame has to wait."""
        return self._on_way > AHEAD_BYTES

    def write(self, data: str) -> None:
        """Write in as few bytes as it takes."""
        assert self._outlet is not None, "the driver is not in application mode"
        text = lean(data)
        self._on_way += len(text)
        self._outlet.write(text)

    def write_pictures(self) -> None:
        """Write the pictures that the terminal does not have yet."""
        if self.album is not None and self._outlet is not None and (news := self.album.news()):
            news = f"{AT_ONCE}{news}{ALL_OF_IT}" if self._answers else news
            self._on_way += len(news)
            self._outlet.write(news)

    def ask(self) -> None:
        """Ask the terminal to answer, if it does such a thing: then it has what came before."""
        if self._answers and not self._asked_at:
            self._asked_at = time.monotonic()
            self.write(ASK)
            self._loop.call_later(PATIENCE_SECONDS, self._give_up, self._asked_at)

    def process_message(self, message: Message) -> None:
        if isinstance(message, TerminalSupportsSynchronizedOutput):
            self._loop.call_soon_threadsafe(self._answered)
        super().process_message(message)

    def start_application_mode(self) -> None:
        assert self._file is not None, "a terminal has a stderr"
        self._outlet = Outlet(self._file.fileno(), self._emptied)
        self._outlet.start()
        super().start_application_mode()
        self._started_at = time.monotonic()
        if self._way is Way.ASK and self.album is None:
            self._replies.asked()
            self._outlet.write(NAME_QUESTION + QUESTION)
        elif self._way is not Way.ASK:
            self._open_album()

    def _sigcont_application(self, *_: object) -> None:
        """Come back, but in the loop and not wherever the signal hits.

        Textual starts application mode at once, also where it never left it or is starting
        already: the threads of the first start then outlive the last stop, and the process with
        them.
        """
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._continued, time.monotonic())

    def _continued(self, at: float) -> None:
        """Start anew, as a shell may have used the terminal, unless that has just been done.

        A thread that is only about to end may be given the signal, and tell of it some time after
        it woke the others.
        """
        listening = self._key_thread is not None and self._key_thread.is_alive()
        if not self._auto_restart or (listening and self._started_at > at - LATE_SECONDS):
            return
        if listening:
            self.suspend_application_mode()
        self.resume_application_mode()
        self._app.call_later(self._app.refresh, layout=True)

    def stop_application_mode(self) -> None:
        if self._outlet is not None:
            self._outlet.forget()
            self._outlet.write(ABORT + (self.album.clearing() if self.album else ""))
        super().stop_application_mode()

    def run_input_thread(self) -> None:
        """As Textual's own, with a parser that knows more answers."""
        listener = Listener(self._replies, self._heard, self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                came = bool(selector.select(LISTEN_SECONDS))
                text = decode(os.read(self.fileno, 4096)) if came else ""
                for message in listener.feed(text) if text else listener.silence():
                    self.process_message(message)
                for message in listener.tick():
                    self.process_message(message)

    def close(self) -> None:
        super().close()
        if self._outlet is not None:
            self._outlet.stop()
            self._outlet = None

    def _emptied(self) -> None:
        """In the thread of the outlet: all was written, and may still be on its way."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._written)

    def _written(self) -> None:
        if not self._asked_at and (self._outlet is None or not self._outlet.pending):
            self._arrived()

    def _answered(self) -> None:
        self._answers, self._asked_at = True, 0.0
        self._written()

    def _give_up(self, asked_at: float) -> None:
        """The answer got lost: go on as with a terminal that never gave one."""
        if self._asked_at == asked_at:
            self._answers, self._asked_at = False, 0.0
            self._written()

    def _heard(self) -> None:
        """In the thread of the keys: the terminal said something about itself."""
        if self._replies.can_show and self._replies.name in DRAW_PLACEHOLDERS:
            self._loop.call_soon_threadsafe(self._open_album)

    def _open_album(self) -> None:
        album = Album(self._app.console.color_system, in_tmux=self._way is Way.THROUGH_TMUX)
        if self._way is not Way.BLOCKS and self.album is None and album.usable:
            self.album = album
            if self.pictured is not None:
                self.pictured()

    def _arrived(self) -> None:
        self._on_way = 0
        if self.caught_up is not None:
            self.caught_up()
