"""What a terminal answers about itself, taken out of what its keyboard sends.

Textual would take the letters of such an answer for keys, and a key may stop a run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from textual._xterm_parser import XTermParser
from textual.message import Message

from dreamer_async.tui.draw.kitty import QUESTION_NUMBER

EXPECTED_SECONDS = 5.0
"""After a question, as long as which a single escape may be the start of an answer."""
CUT_SECONDS = 2.0
"""How long the rest of an answer may take that has begun; it goes on as keys after that."""
_ANSWER = re.compile(r"\x1b(?:_G|P>\|)([^\x1b]*)\x1b\\")
"""About graphics, or what the terminal is called."""
_BEGUN = re.compile(r"\x1b(?:_G|P>\|)[^\x1b]{0,256}\x1b?\Z")
_PERHAPS = re.compile(r"\x1b(?:_|P>?)?\Z")
_CAN = re.compile(rf"(?:.*,)?i={QUESTION_NUMBER}(?:,.*)?;OK")


class Replies:
    """Answers as they come, whole or in pieces, among keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.can_show: bool | None = None
        """Whether the terminal shows pictures; None before it said so."""
        self.name: str | None = None
        """What it is called, in small letters and without a version."""
        self._clock = clock
        self._asked_at = self._held_at = float("-inf")
        self._held = ""

    def asked(self) -> None:
        """A question was sent: from now on answers are to be expected."""
        self._asked_at = self._clock()

    def take(self, text: str) -> str:
        """Keep the answers in a text and give the rest back, without what may become one."""
        rest = _ANSWER.sub(self._understand, self._held + text)
        begun = _BEGUN.search(rest) or (_PERHAPS.search(rest) if self._expecting else None)
        self._held, self._held_at = begun[0] if begun else "", self._clock()
        return rest.removesuffix(self._held)

    def silence(self) -> str:
        """Nothing more came for a moment: what was held back and are keys, such as escape."""
        if _BEGUN.fullmatch(self._held) and self._clock() - self._held_at < CUT_SECONDS:
            return ""
        held, self._held = self._held, ""
        return held

    @property
    def _expecting(self) -> bool:
        return (
            None in (self.can_show, self.name) and self._clock() - self._asked_at < EXPECTED_SECONDS
        )

    def _understand(self, match: re.Match[str]) -> str:
        if match[0].startswith("\x1b_G"):
            self.can_show = bool(_CAN.fullmatch(match[1]))
        else:
            self.name = re.split(r"[ (]", match[1])[0].lower()
        return ""


class Listener(XTermParser):
    """Textual's parser of what a terminal sends, which answers do not reach."""

    def __init__(self, replies: Replies, heard: Callable[[], None], debug: bool = False) -> None:
        """`heard` is called after an answer."""
        super().__init__(debug)
        self._replies, self._heard = replies, heard

    def feed(self, data: str) -> Iterable[Message]:
        before = self._replies.can_show, self._replies.name
        keys = self._replies.take(data)
        if (self._replies.can_show, self._replies.name) != before:
            self._heard()
        if keys or not data:  # no text at all says that there will never be any more
            yield from super().feed(keys)

    def silence(self) -> Iterable[Message]:
        """Give out what was held back, after a moment in which nothing came."""
        if keys := self._replies.silence():
            yield from super().feed(keys)
