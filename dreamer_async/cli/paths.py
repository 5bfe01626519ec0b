"""Paths that the user names; mistakes raise ConfigError."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path

from dreamer_async.config.schema import ConfigError, shown


def runs_root(text: str) -> Path:
    """The directory of all runs, which need not exist yet."""
    if not text or "\0" in text:
        raise ConfigError(f"--runs-dir needs the path of a directory, got {text!r}")
    path = _expanded(text, "--runs-dir")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--runs-dir {text} is not a directory")
    return path


def existing_directory(text: str) -> str:
    """The absolute path of --replay-dir, which has to exist and to be writable."""
    path = _expanded(text, "--replay-dir")
    if not text or "\0" in text or not path.is_dir():
        raise ConfigError(f"--replay-dir needs an existing directory, got {text!r}")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"--replay-dir {text} is not writable")
    return str(path.absolute())


def _expanded(text: str, option: str) -> Path:
    """Replace a ~ by the home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{option} {shown(text)}: there is no such home directory") from None


def check_target(path: Path, option: str) -> None:
    """Refuse a file that is to be written where there is no directory, or where one is already."""
    if path.is_dir():
        raise ConfigError(f"{option} needs a file, but {str(path)!r} is a directory")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{option} needs a file in an existing directory, got {str(path)!r}")


def unused(path: Path) -> Path:
    """The path, or with a number behind its name where there is such a file: nobody chose it."""
    others = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(each for each in chain([path], others) if not each.exists())
