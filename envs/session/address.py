"""Where a trainer listens for the program that steps its session: a socket in a private folder.

The paths of sockets may have 107 bytes and those of runs have more, so that the folder is named by
an open descriptor of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "session.sock"


def listen(folder: Path) -> socket.socket:
    """Listen in a folder, in place of a trainer that is gone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(folder) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def connect(folder: Path) -> socket.socket | None:
    """Call whoever listens in a folder; None if nobody does yet, or any more."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(folder) as path:
            caller.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        caller.close()
        return None
    except BaseException:
        caller.close()
        raise
    return caller


def remove(folder: Path) -> None:
    """Take the socket away; nothing if that is done."""
    with suppress(OSError):
        (folder / NAME).unlink()


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
