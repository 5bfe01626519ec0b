"""The disk on which something is to be made."""

from __future__ import annotations

from pathlib import Path


def existing(path: Path) -> Path:
    """The path itself, or the nearest directory above it that there is."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
