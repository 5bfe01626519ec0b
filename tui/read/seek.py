"""Find the place of something in an event file without reading all of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dreamer_async.store.events import MAX_LINE, Record
from dreamer_async.store.regular_file import reading
from dreamer_async.tui.read.tail import decode

T = TypeVar("T")

NEAR = 1 << 16
"""A bisection ends at most so many bytes, and a line, before what it looks for."""
BLOCK = 1 << 20
BACK = 1 << 25
"""Bytes that are searched backwards: some hours of a run."""
_HEAD_BYTES = 4096
_TIME = re.compile(rb'"time":([0-9.e+]+)')
_GENERATION = re.compile(rb'"generation":([0-9]{1,9})\b')


def seek_time(path: Path, seconds: float) -> int:
    """Find the byte of a line that is about this much older than the newest one, by bisection.

    0 if the file is younger, unreadable, or its lines carry no times.
    """

    def search(fd: int) -> int:
        size = os.fstat(fd).st_size
        newest = _number_after(fd, max(0, size - 2 * _HEAD_BYTES), _TIME)
        if newest is None:
            return 0
        return _bisect(fd, size, _TIME, lambda when: when < newest - seconds)

    return _searched(path, search) or 0


def seek_generation(path: Path, byte: int) -> int:
    """Find a byte a little before the trainer began that wrote the line at `byte`.

    0 if that was the first one, or the file is unreadable.
    """

    def search(fd: int) -> int:
        wanted = _number_after(fd, max(0, byte - 1), _GENERATION)
        if wanted is None:
            return 0
        return _bisect(fd, byte, _GENERATION, lambda generation: generation < wanted)

    return _searched(path, search) or 0


def last_before(path: Path, kind: str, byte: int) -> Record | None:
    """The last event of a kind in the BACK bytes before the line at `byte`, if there is one."""
    mark = b'\n{"type":"%s",' % kind.encode()
    return _searched(path, lambda fd: _last_before(fd, mark, byte))


def _searched(path: Path, search: Callable[[int], T]) -> T | None:
    """What a search finds in the file, given its descriptor; None if that cannot be opened."""
    try:
        file = reading(path)
    except OSError:
        return None
    with file:
        return search(file.fileno())


def _last_before(fd: int, mark: bytes, byte: int) -> Record | None:
    stop, least = byte, max(0, byte - BACK)
    while stop > least:
        start = max(least, stop - BLOCK)
        data = os.pread(fd, stop - start + len(mark), start)[: byte - start]
        found = data.rfind(mark)
        if found >= 0:
            try:
                return decode(os.pread(fd, MAX_LINE, start + found + 1).partition(b"\n")[0])
            except ValueError:
                return None
        stop = start
    return None


def _bisect(fd: int, stop: int, pattern: re.Pattern[bytes], early: Callable[[float], bool]) -> int:
    """The byte of the last line but a few whose number is `early`; 0 if there are only few."""
    low, high = 0, stop
    while high - low > NEAR:
        middle = (low + high) // 2
        number = _number_after(fd, middle, pattern)
        if number is not None and early(number):
            low = middle
        else:
            high = middle
    return _line_after(fd, low) if low else 0


def _number_after(fd: int, offset: int, pattern: re.Pattern[bytes]) -> float | None:
    """A number of the first whole line after a byte; None if there is none near."""
    _, _, lines = os.pread(fd, 2 * _HEAD_BYTES, offset).partition(b"\n")
    found = pattern.search(lines)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _line_after(fd: int, offset: int) -> int:
    """Byte at which the next line begins; the offset itself if that is far away."""
    return offset + os.pread(fd, MAX_LINE, offset).find(b"\n") + 1
