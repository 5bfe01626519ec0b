"""The lock of a run directory: a POSIX record lock, gone when its process is, however it ended."""

from __future__ import annotations

import contextlib
import errno
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

from dreamer_async.config.schema import parse_json
from dreamer_async.store.regular_file import open_regular, reading

_registry_lock = threading.Lock()
_held_locks: dict[tuple[int, int, int], dict[str, Any]] = {}
"""Locks of this process by (pid, device, inode); the pid keeps a forked child from believing it."""
HOST_LENGTH = 64
"""Characters of a name of a machine; Linux knows none longer."""
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
        with _registry_lock:
            if self._held() is not None:
                raise RunInUse(f"{self.name} is already in use by this process")
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                message = self._in_use(_owner(fd, _holder(fd)))
                os.close(fd)
                raise RunInUse(message) from None
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            with contextlib.suppress(OSError):  # a full disk: the kernel knows the pid
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
                file = reading(self.path)
            except OSError:
                return None
            with file:
                pid = _holder(file.fileno())
                return None if pid is None else _owner(file.fileno(), pid)

    def _held(self) -> dict[str, Any] | None:
        """What this process wrote into the lock file, if it holds the lock."""
        try:
            key = _lock_key(self.path.lstat())
        except OSError:
            return None
        return _held_locks.get(key)

    def _in_use(self, owner: Mapping[str, Any]) -> str:
        who = f"pid {owner['pid']} on {owner.get('host', 'this machine')}"
        if "since" not in owner:
            return f"{self.name} is in use by {who}"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner["since"]))
        return f"{self.name} is in use by {who} since {since}"


def lock_file(fd: int) -> bool:
    """Lock a file as long as its open file is, in whatever process; False if someone else has it.

    Unlike the lock of a run it stays when another descriptor of the file is closed. Where a file
    system knows no locks nobody is kept out.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def unlock_file(fd: int) -> None:
    """Give a lock of `lock_file` back; mappings would keep it beyond the descriptor."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


def locked(path: Path) -> bool:
    """Tell whether someone has locked a file with `lock_file`, without touching the lock."""
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with reading(path) as file:
            return _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, ask))[0] != fcntl.F_UNLCK
    except OSError:
        return False


def _lock_key(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino


def _holder(fd: int) -> int | None:
    """Pid that holds a write lock on the file, without touching the lock; None if nobody does."""
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, ask))
    return None if kind == fcntl.F_UNLCK else pid


def _owner(fd: int, pid: int | None) -> dict[str, Any]:
    """Who holds the lock: what the kernel says, and what the holder wrote about itself.

    The kernel does not tell the pid of a process in another container or on another machine.
    """
    return {"pid": pid} | _read_owner(fd) | ({"pid": pid} if pid and pid > 0 else {})


def _read_owner(fd: int) -> dict[str, Any]:
    """What the holder wrote; empty if it has not yet, or wrote nonsense."""
    try:
        data = parse_json(os.pread(fd, 4096, 0))
        host = "".join(filter(str.isprintable, str(data["host"])))[:HOST_LENGTH]
        known = {"pid": int(data["pid"]), "host": host, "since": float(data["since"])}
        time.localtime(known["since"])
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return {}
    return known
