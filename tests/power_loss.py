"""What a power failure may leave of a sequence of calls that changed a directory.

The calls of the real program are recorded by comparing the directory before and after each. The
model is pessimistic, after SQLite's test6.c: what was written to a file and not yet synced may be
missing, cut, half zeros or there; entries of a directory that was not synced since may be lost in
any combination; syncing a file says nothing about its name.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

CALLS = ("mkdir", "rename", "unlink", "rmdir")


@dataclass(frozen=True)
class Change:
    """Entries of one directory that change together, such as both names of a rename."""

    directory: int
    entries: tuple[tuple[str, int | None], ...]
    """(name, inode or None for no longer there)."""


@dataclass(frozen=True)
class Write:
    """New contents of a file."""

    inode: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    """fsync of a file or a directory."""

    inode: int


Operation = Change | Write | Sync


@dataclass
class Disk:
    """Files and directories by inode."""

    root: int
    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Disk:
        disk = cls(path.stat().st_ino)
        for folder, _, _ in os.walk(path):
            entries = {entry.name: entry.inode() for entry in os.scandir(folder)}
            disk.folders[os.stat(folder).st_ino] = entries
            for name, inode in entries.items():
                if (Path(folder) / name).is_file():
                    disk.files[inode] = (Path(folder) / name).read_bytes()
        return disk

    def copy(self) -> Disk:
        return Disk(self.root, dict(self.files), {i: dict(f) for i, f in self.folders.items()})

    def apply(self, change: Change) -> None:
        entries = self.folders.setdefault(change.directory, {})
        for name, inode in change.entries:
            if inode is None:
                entries.pop(name, None)
            else:
                entries[name] = inode

    def tree(self) -> dict[str, bytes | None]:
        """Every path below the root with its contents, None for directories."""
        return dict(self._below(self.root, ""))

    def _below(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in sorted(self.folders.get(folder, {}).items()):
            if inode in self.files:
                yield prefix + name, self.files[inode]
            else:
                yield prefix + name, None
                yield from self._below(inode, f"{prefix}{name}/")


def recorded(path: Path, action: Callable[[], Any]) -> tuple[Disk, list[Operation]]:
    """Run the action; returns what was below `path` before, and what it did there in order."""
    recorder = _Recorder(path)
    before = recorder.seen.copy()
    with recorder.listening():
        action()
    recorder.compare()
    return before, recorder.operations


class _Recorder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = Disk.read(path)
        self.operations: list[Operation] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            self.compare()
            fsync(descriptor)
            self.operations.append(Sync(os.fstat(descriptor).st_ino))

        patches = [mock.patch.object(os, name, self._compared(name)) for name in CALLS]
        with mock.patch.object(os, "fsync", synced):
            for patch in patches:
                patch.start()
            try:
                yield
            finally:
                for patch in patches:
                    patch.stop()

    def _compared(self, name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.compare()
            try:
                return original(*args, **kwargs)
            finally:
                self.compare()

        return call

    def compare(self) -> None:
        """Turn what is different since the last time into operations."""
        now = Disk.read(self.path)
        for folder, entries in now.folders.items():
            old = self.seen.folders.get(folder, {})
            gone = [(name, None) for name in old if name not in entries]
            new = [(name, inode) for name, inode in entries.items() if old.get(name) != inode]
            if gone or new:
                self.operations.append(Change(folder, (*gone, *new)))
        for inode, data in now.files.items():
            if self.seen.files.get(inode) != data:
                self.operations.append(Write(inode, data))
        self.seen = now


def after_power_loss(
    before: Disk, operations: Sequence[Operation]
) -> Iterator[dict[str, bytes | None]]:
    """Every tree that may be there if the power fails right after these operations."""
    durable, changes, written = before.copy(), list[Change](), dict[int, bytes]()
    for operation in operations:
        match operation:
            case Change():
                changes.append(operation)
            case Write(inode, data):
                written[inode] = data
            case Sync(inode):
                for change in [c for c in changes if c.directory == inode]:
                    durable.apply(change)
                changes = [c for c in changes if c.directory != inode]
                if inode in written:
                    durable.files[inode] = written.pop(inode)
    for kept in itertools.product((False, True), repeat=len(changes)):
        for contents in itertools.product(*(_left(durable, i, d) for i, d in written.items())):
            disk = durable.copy()
            disk.files |= dict(zip(written, contents, strict=True))
            for change in itertools.compress(changes, kept):
                disk.apply(change)
            yield disk.tree()


def _left(disk: Disk, inode: int, data: bytes) -> list[bytes]:
    """What may be left of a file that was not synced."""
    half = data[: len(data) // 2]
    return [disk.files.get(inode, b""), half, half.ljust(len(data), b"\0"), data]


def restore(tree: dict[str, bytes | None], root: Path) -> None:
    """Make a tree on a real disk, below an empty directory."""
    for name, data in tree.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)
