"""Follow a growing event file by byte offset, in pieces that never block a screen for long."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from dreamer_async.store.events import (
    LARGEST,
    MAX_LINE,
    Episode,
    Gauges,
    Metrics,
    Record,
    decode_line,
)
from dreamer_async.store.regular_file import open_regular

_GAUGES = b'{"type":"gauges",'
_FREQUENT = (_GAUGES, b'{"type":"metrics",', b'{"type":"episode",')
_NUMBERS = frozenset({int, float, type(None)})
_LONG_NUMBER = re.compile(rb"[0-9]{40}")
"""More digits than any number of a run has; what is made of one may fit neither float nor array."""


class Tail:
    """Reads whole lines of `path` from byte `start` on as they come and decodes them.

    An unfinished last line waits for its end. Lines that cannot be read are skipped and counted.
    A file that was replaced or became shorter is read from its start: `restarts` goes up, and
    whoever follows starts from nothing, so that the result equals a fresh reading of the file.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.offset = start
        """Bytes read, including the unfinished line."""
        self.size = 0
        """Bytes of the file at the last read."""
        self.gauges_from = 0
        """Gauges that begin before this byte are not decoded: only the newest are of any use."""
        self.skipped = 0
        """Lines that were torn, unknown, badly typed or too long."""
        self.restarts = 0
        self._fd = -1
        self._rest = b""
        self._overlong = False

    @property
    def behind(self) -> bool:
        """Tell whether the file had more when it was last read."""
        return self.offset < self.size

    def read(self, limit: int = 1 << 17) -> list[Record]:
        """Return the records in the next `limit` bytes; empty if there is nothing new."""
        if self._fd < 0 and not self._open():
            return []
        self.size = os.fstat(self._fd).st_size
        if self.size < self.offset:
            self._restart()
        data = os.pread(self._fd, limit, self.offset)
        self.offset += len(data)
        if not data and self._replaced():
            self.close()
            self._restart()
            return self.read(limit) if self._open() else []
        return self._decode(data, keep_gauges=self.offset >= self.gauges_from)

    def close(self) -> None:
        """Close the file; a later read opens it anew."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> bool:
        """Open the file; False if it is missing or anything but a regular file."""
        try:
            self._fd = open_regular(self.path)
        except OSError:
            return False
        return True

    def _replaced(self) -> bool:
        """Tell whether the path names another file by now; a deleted one may come back."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _restart(self) -> None:
        self.offset, self._rest, self._overlong, self.gauges_from = 0, b"", False, 0
        self.restarts += 1

    def _decode(self, data: bytes, *, keep_gauges: bool) -> list[Record]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._overlong and lines:
            lines, self._overlong = lines[1:], False
        records = []
        for line in lines:
            if not line.strip() or (not keep_gauges and line.startswith(_GAUGES)):
                continue
            try:
                records.append(decode(line))
            except ValueError:
                self.skipped += 1
        if len(self._rest) >= MAX_LINE:
            self.skipped += not self._overlong
            self._rest, self._overlong = b"", True
        return records


def decode(line: bytes) -> Record:
    """Decode a line as `decode_line` does, the frequent and well-typed ones in a third of the time.

    Raises ValueError for what is no event.
    """
    if line.startswith(_FREQUENT):
        record = _frequent(line)
        if record is not None:
            return record
    return decode_line(line)


def _frequent(line: bytes) -> Record | None:
    """Decode metrics, gauges or an episode; None for anything that deserves a closer look."""
    try:
        data = json.loads(line)
        time, mono, generation = data["time"], data["mono"], data["generation"]
        if type(time) is not float or type(mono) is not float or not _whole(generation):
            return None
        event = _EVENTS[data["type"]](data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if event is None or _LONG_NUMBER.search(line):
        return None
    return Record(event, time, mono, generation)


def _metrics(data: dict[str, Any]) -> Metrics | None:
    values = _checked(data, data["update"], data["env_steps"])
    return None if values is None else Metrics(data["update"], data["env_steps"], values)


def _gauges(data: dict[str, Any]) -> Gauges | None:
    values = _checked(data, data["env_steps"], data["updates"])
    return None if values is None else Gauges(data["env_steps"], data["updates"], values)


def _episode(data: dict[str, Any]) -> Episode | None:
    if data.get("log"):
        return None
    event = Episode(data["env_steps"], data["env_id"], data["score"], data["length"])
    whole = _whole(event.env_steps, event.env_id, event.length)
    return event if whole and type(event.score) is float else None


_EVENTS = {"metrics": _metrics, "gauges": _gauges, "episode": _episode}


def _checked(data: dict[str, Any], *counters: object) -> dict[str, float | None] | None:
    """The values of an event if all of them, and its counters, are of the right types."""
    values = data["values"]
    good = _NUMBERS.issuperset(map(type, values.values()))
    return values if good and _whole(*counters) else None


def _whole(*numbers: object) -> bool:
    """Tell whether these are whole numbers as `decode_line` takes them."""
    return all(type(number) is int and abs(number) <= LARGEST for number in numbers)
