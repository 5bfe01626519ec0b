"""What commands print: text of files, environments and paths moves no cursor and hides nothing.

Terminals obey escape sequences wherever they come from. So the standard streams of a command are
cleaned in one place, whoever writes to them: `print`, tracebacks, warnings, other packages.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


def printable(text: str) -> str:
    """Drop whatever a terminal would obey or not show, except newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


class CleanStream(io.TextIOBase):
    """A text stream that takes what `printable` leaves."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def buffer(self) -> io.BufferedIOBase:
        """The stream of bytes below, which is not cleaned."""
        return self._stream.buffer  # type: ignore[return-value]

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    @property
    def errors(self) -> str | None:
        return self._stream.errors

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True


def open_closed_streams() -> None:
    """Open the null device as every standard stream that a shell has closed (`>&-`).

    Otherwise the next file to be opened would get its number, such as the replay, and whatever
    prints below Python would write into that. Processes that this one starts inherit them.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # always the lowest number that is free
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


@contextmanager
def clean_output() -> Iterator[None]:
    """Clean what this process prints inside the block, tracebacks included."""
    out, err = CleanStream(sys.stdout), CleanStream(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        yield
