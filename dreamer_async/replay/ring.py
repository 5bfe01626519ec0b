"""One mmapped file of aligned arrays behind a checked header: what the replay is stored in.

A file is `page 0 (and more, if the spec is long): magic, version, spec, writer record`, then
one 4 KiB aligned array after the other. It is shared by every process that maps it, and the
kernel keeps its pages when the process is killed. docs/replay.md draws the memory map.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.config.schema import named, parse_json, shown
from dreamer_async.store.regular_file import open_regular, reading
from dreamer_async.store.run_dir import DRAFT
from dreamer_async.store.run_lock import RunInUse, lock_file, unlock_file
from dreamer_async.store.sizes import in_words

MAGIC = b"DRMRRING"
VERSION = 1
PAGE = 4096

_HEAD = struct.Struct("<8sIIQ")  # magic, version, crc32 of all of this without itself, spec bytes
_RECORD = struct.Struct("<QQ16s")  # generation, writer pid, partner id
_CRC = struct.Struct("<I")
_IDENTITY = re.compile("[0-9a-f]{32}")
_RECORD_AT = 64
_SPEC_AT = 128
_SPEC_LIMIT = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class RingMismatch(ValueError):
    """A file is not the one that this run would read; the message says where they differ."""


class ReplaySpaceError(OSError):
    """The replay does not fit the disk; `needed` and `free` are in bytes."""

    def __init__(self, path: Path, needed: int, free: int, code: int = errno.ENOSPC) -> None:
        text = (
            f"the replay needs {needed:,} bytes ({in_words(needed)}) at {path.parent} "
            f"and {free:,} bytes ({in_words(free)}) are free; make it smaller "
            f"(-s replay.capacity_gb=...) or put it elsewhere (--replay-dir)"
        )
        super().__init__(code, text, str(path))
        self.needed = needed
        self.free = free

    def __str__(self) -> str:
        """Say it without the error number and the path that OSError would add."""
        return str(self.strerror)


@dataclass(frozen=True)
class Field:
    """Shape and type of one array, or of one entry of a column."""

    shape: tuple[int, ...]
    """Shape without the axes of environments and time."""
    dtype: str
    """Name of a numpy type of fixed size: bool, integers or floats."""

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "biuf":
            raise ValueError(f"dtype {self.dtype!r} cannot be stored; use bool, integers or floats")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape {self.shape} has an empty axis")

    @property
    def nbytes(self) -> int:
        """Size of one entry in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def describe(self) -> list[Any]:
        """Give type and shape as they stand in a header."""
        return [np.dtype(self.dtype).str, list(self.shape)]


@dataclass(frozen=True)
class FileSpec:
    """What a header says about its file, apart from the writer."""

    kind: str
    """What the file is, such as replay ring."""
    identity: str
    """32 hexadecimal digits that name this one file for its whole life."""
    num_envs: int
    """Environments."""
    capacity: int
    """Steps per environment."""
    arrays: Mapping[str, Field]
    """Every array in file order, with its full shape."""

    def encode(self) -> bytes:
        """Write the spec as JSON."""
        arrays = {name: array.describe() for name, array in self.arrays.items()}
        return json.dumps(
            {
                "kind": self.kind,
                "identity": self.identity,
                "num_envs": self.num_envs,
                "capacity": self.capacity,
                "arrays": arrays,
            }
        ).encode()

    def offsets(self) -> tuple[dict[str, int], int]:
        """Place the arrays behind the header; the second result is the size of the file."""
        end = _pages(_SPEC_AT + len(self.encode()))
        offsets = {}
        for name, array in self.arrays.items():
            offsets[name] = end
            end += _pages(array.nbytes)
        return offsets, end


@dataclass(frozen=True)
class Record:
    """The part of a header that changes: who writes the file."""

    generation: int = 0
    """How many writers have opened the file so far."""
    pid: int = field(default_factory=os.getpid)
    """Process id of the last writer."""
    partner: str = "0" * 32
    """Identity of the file that belongs to this one."""


class RingFile:
    """A mapped file; `arrays` are views of it until `close`."""

    def __init__(self, path: Path, spec: FileSpec, fd: int, *, readonly: bool) -> None:
        """Map the open file `fd` and take it over."""
        self.path = path
        self.spec = spec
        self._fd = fd
        offsets, self.nbytes = spec.offsets()
        protection = mmap.PROT_READ if readonly else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            self._map = mmap.mmap(fd, self.nbytes, mmap.MAP_SHARED, protection)
        except OSError as error:
            text = f"{path.name} of {self.nbytes:,} bytes cannot be mapped ({error.strerror})"
            raise MemoryError(f"{text}; raise ulimit -v, or -s replay.capacity_gb=N") from error
        self.arrays = {
            name: _view(self._map, offsets[name], array) for name, array in spec.arrays.items()
        }

    @classmethod
    def create(cls, path: Path, spec: FileSpec, record: Record) -> RingFile:
        """Allocate a file of zeros that appears under its name only when it is complete.

        Raises ReplaySpaceError, with nothing left behind, if the disk has no room for all of it.
        """
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is a replay already; open it", str(path))
        draft = path.with_name(path.name + DRAFT)
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            lock_file(fd)  # so that nobody takes the draft for one that was left behind
            _allocate(fd, path, spec.offsets()[1])
            _write_all(fd, _head(spec.encode()), 0)
            _write_all(fd, spec.encode(), _SPEC_AT)
            ring = cls(path, spec, fd, readonly=False)
            ring.write_record(record)
            draft.rename(path)
        except BaseException:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        return ring

    @classmethod
    def open(cls, path: Path, expected: FileSpec, *, readonly: bool = False) -> RingFile:
        """Map an existing file after checking that it is what `expected` says.

        Only the identity may differ. Raises RingMismatch with the reason, or FileNotFoundError.
        """
        fd = open_regular(path, os.O_RDONLY if readonly else os.O_RDWR)
        try:
            found = _read_spec(fd, path)
            spec = _verify(found, expected, path)
            size, needed = os.fstat(fd).st_size, spec.offsets()[1]
            if size != needed:
                raise RingMismatch(f"{path} has {size:,} bytes, its header asks for {needed:,}")
            last = _read_record(fd, path)
            if not readonly:
                _take(fd, path, last, needed)
            return cls(path, spec, fd, readonly=readonly)
        except BaseException:
            os.close(fd)
            raise

    @property
    def record(self) -> Record:
        """Read the writer record."""
        return _read_record(self._fd, self.path)

    def write_record(self, record: Record) -> None:
        """Replace the writer record; one small write, which a kill cannot split."""
        data = _RECORD.pack(record.generation, record.pid, bytes.fromhex(record.partner))
        _write_all(self._fd, data + _CRC.pack(zlib.crc32(data)), _RECORD_AT)

    def write_array(self, name: str, values: NDArray[Any]) -> None:
        """Replace a small array in one write, which a kill cannot split inside a page."""
        view = self.arrays[name]
        assert values.shape == view.shape and values.dtype == view.dtype, (name, values.shape)
        _write_all(self._fd, values.tobytes(), self.spec.offsets()[0][name])

    def flush(self) -> None:
        """Write dirty pages to the disk and wait for it."""
        self._map.flush()

    def close(self) -> None:
        """Unmap the file; views that are still held elsewhere keep the mapping alive."""
        if self._fd < 0:
            return
        self.arrays.clear()
        with suppress(BufferError):
            self._map.close()
        unlock_file(self._fd)
        os.close(self._fd)
        self._fd = -1


def check_space(path: Path, needed: int) -> int:
    """Return the free bytes where `path` will be; raises ReplaySpaceError if `needed` is more."""
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise ReplaySpaceError(path, needed, free)
    return free


def stored_file_spec(path: Path) -> FileSpec:
    """Read what the header of an existing file says about it."""
    with reading(path) as file:
        found = _read_spec(file.fileno(), path)
    try:
        arrays = {
            name: Field(tuple(shape), kind) for name, (kind, shape) in found["arrays"].items()
        }
        num_envs, capacity = int(found["num_envs"]), int(found["capacity"])
        if min(num_envs, capacity) < 1:
            raise ValueError(f"{num_envs} environments, {capacity} steps")
        return FileSpec(str(found["kind"]), str(found["identity"]), num_envs, capacity, arrays)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RingMismatch(f"the header of {path} cannot be read: {error!r}") from error


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _view(memory: mmap.mmap, offset: int, array: Field) -> NDArray[Any]:
    count = math.prod(array.shape)
    return np.frombuffer(memory, array.dtype, count, offset).reshape(array.shape)


def _allocate(fd: int, path: Path, nbytes: int) -> None:
    """Reserve every block now, so that a full disk is an error here and not a SIGBUS later.

    What the file has already stays as it is.
    """
    free = check_space(path, nbytes - os.fstat(fd).st_blocks * 512)
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ReplaySpaceError(path, nbytes, free, error.errno) from error
        raise


def _take(fd: int, path: Path, last: Record, nbytes: int) -> None:
    """Become the only one who writes, with every block on the disk; raises RunInUse."""
    if not lock_file(fd):
        raise RunInUse(f"{path} is in use by another process (pid {last.pid} opened it last)")
    _allocate(fd, path, nbytes)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _head(spec: bytes) -> bytes:
    return _HEAD.pack(MAGIC, VERSION, _head_crc(VERSION, spec), len(spec))


def _head_crc(version: int, spec: bytes) -> int:
    return zlib.crc32(_HEAD.pack(MAGIC, version, 0, len(spec)) + spec)


def _read_spec(fd: int, path: Path) -> dict[str, Any]:
    """Read and check everything in front of the arrays that never changes."""
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) < _HEAD.size or head[: len(MAGIC)] != MAGIC:
        raise RingMismatch(f"{path} is not a replay file (its first bytes are {head[:8]!r})")
    _, version, crc, length = _HEAD.unpack(head)
    if version != VERSION:
        raise RingMismatch(f"{path} has format version {version}, this program reads {VERSION}")
    data = os.pread(fd, min(length, _SPEC_LIMIT), _SPEC_AT)
    if len(data) != length or _head_crc(version, data) != crc:
        raise RingMismatch(f"the header of {path} is damaged (wrong checksum)")
    try:
        found = parse_json(data)
    except ValueError as error:
        raise RingMismatch(f"the header of {path} is not JSON") from error
    if not isinstance(found, dict):
        raise RingMismatch(f"the header of {path} is {type(found).__name__}, not an object")
    return found


def _read_record(fd: int, path: Path) -> Record:
    data = os.pread(fd, _RECORD.size + _CRC.size, _RECORD_AT)
    body, crc = data[: _RECORD.size], data[_RECORD.size :]
    if len(data) != _RECORD.size + _CRC.size or _CRC.unpack(crc)[0] != zlib.crc32(body):
        raise RingMismatch(f"the writer record of {path} is damaged (wrong checksum)")
    generation, pid, partner = _RECORD.unpack(body)
    return Record(generation, pid, partner.hex())


def _verify(found: dict[str, Any], expected: FileSpec, path: Path) -> FileSpec:
    """Compare a stored spec with the expected one; the result carries the stored identity."""
    wanted = json.loads(expected.encode())
    for key in ("kind", "num_envs", "capacity"):
        if found.get(key) != wanted[key]:
            text = f"{path} has {key} {shown(found.get(key))}, this run needs {wanted[key]!r}"
            raise RingMismatch(text)
    have, want = found.get("arrays"), wanted["arrays"]
    if not isinstance(have, dict):
        raise RingMismatch(f"{path} names no arrays")
    for name in [*want, *have]:
        if have.get(name) != want.get(name):
            stored, needed = shown(have.get(name)), want.get(name)
            raise RingMismatch(f"{named(name)} is {stored} in {path}, this run needs {needed}")
    if list(have) != list(want):
        raise RingMismatch(f"{path} stores {shown(list(have))}, this run needs {list(want)}")
    identity = found.get("identity")
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        raise RingMismatch(f"{path} has no valid identity: {shown(identity)}")
    return FileSpec(expected.kind, identity, expected.num_envs, expected.capacity, expected.arrays)
