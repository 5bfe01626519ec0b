"""Follow a growing event file by byte offset, in pieces that never block a screen for long."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dreamer_async.events import MAX_LINE, Record, decode_line


class Tail:
    """Reads whole lines of `path` as they come and decodes them.

    An unfinished last line waits for its end. Lines that cannot be read are skipped and counted.
    A file that was replaced or became shorter is read from its start: `restarts` goes up, and
    whoever follows starts from nothing, so that the result equals a fresh reading of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        """Bytes read, including the unfinished line."""
        self.size = 0
        """Bytes of the file at the last read."""
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
        return self._decode(data)

    def close(self) -> None:
        """Close the file; a later read opens it anew."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> bool:
        """Open the file; False if it is missing or anything but a regular file."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return False
        self._fd = fd
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
        self.offset, self._rest, self._overlong = 0, b"", False
        self.restarts += 1

    def _decode(self, data: bytes) -> list[Record]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._overlong and lines:
            lines, self._overlong = lines[1:], False
        records = []
        for line in lines:
            if not line.strip():
                continue
            try:
                records.append(decode_line(line))
            except ValueError:
                self.skipped += 1
        if len(self._rest) >= MAX_LINE:
            self.skipped += not self._overlong
            self._rest, self._overlong = b"", True
        return records
