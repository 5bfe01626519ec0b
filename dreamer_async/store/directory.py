"""Directories: the nearest one that there is, and those that only this user may open."""

from __future__ import annotations

import os
from pathlib import Path


def existing(path: Path) -> Path:
    """The path itself, or the nearest directory above it that there is."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def make_private(directory: Path) -> bool:
    """Make a directory that only this user may open (0700), or close one of this user's.

    False if that cannot be: a link, another user's, no directory, a disk that refuses.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return False
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True
