"""Bytes and other numbers as people read them."""

from __future__ import annotations

UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def in_words(count: float) -> str:
    """A number of bytes in the unit that suits it: 12.60 GB, 1.5 MB, 3.2 kB, 0 bytes."""
    for unit, size in UNITS:
        if count >= size:
            return f"{count / size:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} bytes"


def counted(number: int, noun: str) -> str:
    """So many of something: 1 core, 2 cores."""
    return f"{number} {noun}{'s' * (number != 1)}"
