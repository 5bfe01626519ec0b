"""The lock of a run directory: a POSIX record lock, gone when its process is, however it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_registry_lock = threading.Lock()
_held_locks: dict[tuple[int, int, int], dict[str, Any]] = {}
"""Locks of this process by (pid, device, inode); the pid keeps a forked child from believing it."""
_FLOCK = struct.Struct("@hhqqi0q")
"""Linux struct flock: type, whence, start, length, pid."""


class RunInUse(RuntimeError):
    """Another process is training in the run directory; the message says which."""


class RunLock:
    """Says who trains in a run, and keeps all others out."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        """Of the run, for people."""

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold it for this process; raises RunInUse at once if someone else has it.

        Blocks nobody and survives nothing: the kernel drops it when the process ends.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        with _registry_lock:
            if self._held() is not None:
                raise RunInUse(f"{self.name} is already in use by this process")
            fd = os.open(self.path, flags, 0o644)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                message = self._in_use(_read_owner(fd), _holder(fd))
                os.close(fd)
                raise RunInUse(message) from None
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(owner).encode(), 0)
            key = _lock_key(os.fstat(fd))
            _held_locks[key] = owner
        try:
            yield
        finally:
            with _registry_lock:
                _held_locks.pop(key, None)
                os.close(fd)

    def owner(self) -> dict[str, Any] | None:
        """Who holds it now: pid, host and since (unix seconds); None if nobody does.

        Never takes the lock, and never opens the file in the process that holds it: closing
        any descriptor of the file would drop a POSIX lock.
        """
        with _registry_lock:
            mine = self._held()
            if mine is not None:
                return dict(mine)
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                return None
            try:
                pid = _holder(fd)
                return None if pid is None else {"pid": pid} | _read_owner(fd)
            finally:
                os.close(fd)

    def _held(self) -> dict[str, Any] | None:
        """What this process wrote into the lock file, if it holds the lock."""
        try:
            key = _lock_key(self.path.stat())
        except OSError:
            return None
        return _held_locks.get(key)

    def _in_use(self, owner: Mapping[str, Any], pid: int | None) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.get("since", 0)))
        who = f"pid {owner.get('pid', pid)} on {owner.get('host', 'this machine')}"
        return f"{self.name} is in use by {who} since {since}" if owner else f"{who} uses it"


def _lock_key(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino


def _holder(fd: int) -> int | None:
    """Pid that holds a write lock on the file, without touching the lock; None if nobody does."""
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, ask))
    return None if kind == fcntl.F_UNLCK else pid


def _read_owner(fd: int) -> dict[str, Any]:
    """What the holder wrote; empty if it has not yet, or wrote nonsense."""
    try:
        data = json.loads(os.pread(fd, 4096, 0))
        known = {"pid": int(data["pid"]), "host": str(data["host"]), "since": float(data["since"])}
        time.localtime(known["since"])
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return {}
    return known
