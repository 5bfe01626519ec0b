"""Requests to a trainer: files in a directory of its run, one each, in the order of their names."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer_async.store.directory import make_private
from dreamer_async.store.json_file import read_json, write_json_atomic

COMMANDS = ("stop", "pause", "resume", "checkpoint", "evaluate", "film")
"""Requests that a trainer understands."""


@dataclass(frozen=True)
class Request:
    """What someone asks of a running trainer."""

    command: str
    """One of COMMANDS."""
    args: Mapping[str, Any]
    time: float
    """Unix time in seconds of the request."""


class ControlDir:
    """Where requests wait; only its user can write there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self) -> None:
        """Throw away requests to whoever was asked before, in a directory that is made if need be.

        PermissionError if it is somebody else's, or a link.
        """
        if not make_private(self.path):
            raise PermissionError(f"{self.path} is not a directory that belongs to this user")
        self.take()

    def ask(self, command: str, args: Mapping[str, Any]) -> None:
        """Leave a request for the trainer."""
        assert command in COMMANDS, f"{command} is none of {COMMANDS}"
        self.path.mkdir(mode=0o700, exist_ok=True)
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
        body = {"command": command, "args": dict(args), "time": time.time()}
        write_json_atomic(self.path / name, body)

    def take(self) -> list[Request]:
        """Take all waiting requests, oldest first; what is not a request is thrown away.

        Only files of this user count, so that a shared directory gives nobody else control.
        """
        taken = []
        for path in sorted(self._waiting()):
            try:
                if path.lstat().st_uid == os.geteuid():
                    taken.append(_as_request(read_json(path)))
            except (OSError, ValueError, OverflowError):
                pass  # junk, or gone: either way it is not a request
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()
        return taken

    def _waiting(self) -> list[Path]:
        try:
            entries = list(os.scandir(self.path))
        except OSError:
            return []
        files = (e for e in entries if not e.is_dir(follow_symlinks=False))
        return [Path(e.path) for e in files if e.name.endswith(".json")]


def _as_request(data: Any) -> Request:
    """Read one request; raises ValueError if it is none."""
    if not isinstance(data, dict) or data.get("command") not in COMMANDS:
        raise ValueError("not a request")
    args, when = data.get("args", {}), data.get("time", 0.0)
    if not isinstance(args, dict) or not isinstance(when, (int, float)):
        raise ValueError("not a request")
    return Request(data["command"], args, float(when))
