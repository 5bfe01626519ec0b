"""Opening files that may come from anyone: regular ones of a bearable size, and nothing else.

Whoever reads a pipe waits for its writer, a device may act when it is opened, and a link leads out
of the run. So every file of a run is opened here, whoever made it.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
import zlib
from io import BufferedReader
from pathlib import Path
from tokenize import TokenError

DAMAGED_ARRAYS: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    EOFError,
    TypeError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TokenError,  # numpy reads headers with Python's tokenizer
)
"""What a damaged .npz makes zipfile and numpy raise, besides ValueError and OSError."""

_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: ("a symbolic link", errno.ELOOP),
    stat.S_IFDIR: ("a directory", errno.EISDIR),
    stat.S_IFIFO: ("a pipe", errno.ENXIO),
    stat.S_IFSOCK: ("a socket", errno.ENXIO),
}


class NotRegular(OSError):
    """What should be a regular file is something else; the message says what."""

    def __str__(self) -> str:
        """Say it without the error number that OSError would add."""
        return str(self.strerror)


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Open a regular file and return its descriptor; raises NotRegular, or OSError as `os.open`.

    Never waits, never follows a link in place of the file (those of its parents are followed), and
    never opens anything else, not even for a moment, unless it was put there in that moment.
    """
    try:
        _check(path, os.lstat(path))
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | _SAFELY, mode)
    try:
        _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def reading(path: Path) -> BufferedReader:
    """`open_regular` for a `with`, which closes it again; read by the file or its descriptor."""
    return open(open_regular(path), "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Read a whole regular file; raises ValueError, before reading, beyond `limit` bytes."""
    with reading(path) as file:
        if os.fstat(file.fileno()).st_size <= limit:
            data = file.read(limit + 1)  # it may have grown
            if len(data) <= limit:
                return data
    raise ValueError(f"{path.name} is larger than {limit:,} bytes")


def _check(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind, number = _KINDS.get(stat.S_IFMT(status.st_mode), ("a device", errno.ENXIO))
    raise NotRegular(number, f"{path} is {kind}, not a regular file")
