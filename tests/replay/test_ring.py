"""The mapped file: layout, refusals, and what a failed allocation leaves behind."""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.replay import ring
from dreamer_async.replay.ring import (
    PAGE,
    Field,
    FileSpec,
    Record,
    ReplaySpaceError,
    RingFile,
    RingMismatch,
    stored_file_spec,
)
from dreamer_async.store.run_lock import RunInUse, locked

ID = "0123456789abcdef" * 2


def spec(**changes: object) -> FileSpec:
    values = {
        "kind": "test",
        "identity": ID,
        "num_envs": 2,
        "capacity": 5,
        "arrays": {"cursors": Field((2, 2), "int64"), "frame": Field((2, 5, 7), "uint8")},
    }
    return FileSpec(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ring"
    RingFile.create(path, spec(), Record(3, 4, ID)).close()
    return path


def rewrite_spec(path: Path, change: dict[str, object], version: int = ring.VERSION) -> None:
    """Put another spec into the header, with the checksum that belongs to it."""
    body = json.loads(spec().encode())
    data = json.dumps(body | change).encode() if change is not None else b""
    write_header(path, data, version)


def write_header(path: Path, data: bytes, version: int = ring.VERSION) -> None:
    crc = zlib.crc32(struct.pack("<8sIIQ", ring.MAGIC, version, 0, len(data)) + data)
    with path.open("r+b") as file:
        file.write(struct.pack("<8sIIQ", ring.MAGIC, version, crc, len(data)))
        file.seek(128)
        file.write(data)


def test_arrays_are_zero_page_aligned_and_survive_closing(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    file = RingFile.create(path, spec(), Record())
    assert set(file.arrays) == {"cursors", "frame"}
    for array in file.arrays.values():
        assert array.ctypes.data % PAGE == 0
        assert not array.any()
    file.arrays["frame"][1, 2] = np.arange(7)
    file.flush()
    file.close()
    file.close()
    again = RingFile.open(path, spec())
    np.testing.assert_array_equal(again.arrays["frame"][1, 2], np.arange(7))
    assert again.nbytes == path.stat().st_size == 3 * PAGE
    assert path.stat().st_blocks * 512 >= 3 * PAGE, "blocks are allocated, not sparse"
    again.close()


def test_two_mappings_share_their_pages(path: Path) -> None:
    writer, reader = RingFile.open(path, spec()), RingFile.open(path, spec(), readonly=True)
    writer.arrays["cursors"][1, 1] = 9
    assert reader.arrays["cursors"][1, 1] == 9
    with pytest.raises(ValueError, match="read-only"):
        reader.arrays["cursors"][0, 0] = 1
    writer.close()
    reader.close()


def test_record_is_replaced(path: Path) -> None:
    file = RingFile.open(path, spec())
    assert file.record == Record(3, 4, ID)
    file.write_record(Record(4, 5, "f" * 32))
    assert file.record == Record(4, 5, "f" * 32)
    file.close()


def test_a_long_spec_takes_more_than_one_page(tmp_path: Path) -> None:
    arrays = {f"vector_number_{i}": Field((2, 5), "float32") for i in range(200)}
    wide = spec(arrays=arrays)
    path = tmp_path / "ring"
    file = RingFile.create(path, wide, Record())
    for i, array in enumerate(file.arrays.values()):
        array[...] = i
    file.close()
    again = RingFile.open(path, wide)
    assert [int(a[1, 4]) for a in again.arrays.values()] == list(range(200))
    again.close()
    assert stored_file_spec(path).arrays == {k: Field((2, 5), "<f4") for k in arrays}


def test_create_never_replaces_a_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        RingFile.create(path, spec(), Record())
    assert path.read_bytes() == before


def test_create_sweeps_the_draft_of_a_killed_process(tmp_path: Path) -> None:
    (tmp_path / "ring.tmp").write_bytes(b"half")
    RingFile.create(tmp_path / "ring", spec(), Record()).close()
    assert [p.name for p in tmp_path.iterdir()] == ["ring"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RingFile.open(tmp_path / "ring", spec())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "other"}, "kind 'other'"),
        ({"num_envs": 3}, "num_envs 3, this run needs 2"),
        ({"capacity": 50}, "capacity 50, this run needs 5"),
        ({"identity": "../../x"}, "no valid identity"),
        ({"identity": 7}, "no valid identity"),
        ({"arrays": None}, "names no arrays"),
        ({"arrays": {"cursors": ["<i8", [2, 2]]}}, "frame is None"),
        ({"arrays": {"cursors": ["<i8", [2, 2]], "frame": ["<f4", [2, 5, 7]]}}, "frame is "),
        ({"arrays": {"cursors": ["<i8", [2, 2]], "frame": ["|u1", [2, 5, 8]]}}, "frame is "),
        ({"arrays": {"frame": ["|u1", [2, 5, 7]], "cursors": ["<i8", [2, 2]]}}, "stores"),
        (
            {
                "arrays": {
                    "cursors": ["<i8", [2, 2]],
                    "frame": ["|u1", [2, 5, 7]],
                    "more": ["|u1", [2]],
                }
            },
            "more is ",
        ),
    ],
)
def test_another_spec_is_refused(path: Path, change: dict[str, object], reason: str) -> None:
    rewrite_spec(path, change)
    with pytest.raises(RingMismatch, match=reason):
        RingFile.open(path, spec())


def test_another_version_is_refused(path: Path) -> None:
    rewrite_spec(path, {}, version=2)
    with pytest.raises(RingMismatch, match="format version 2, this program reads 1"):
        RingFile.open(path, spec())


@pytest.mark.parametrize("body", [b"[1]", b"{", b"[" * 100_000, b"\xff", b""])
def test_a_spec_that_is_not_an_object_is_refused(path: Path, body: bytes) -> None:
    write_header(path, body)
    with pytest.raises(RingMismatch):
        RingFile.open(path, spec())
    with pytest.raises(RingMismatch):
        stored_file_spec(path)


@pytest.mark.parametrize(
    "change",
    [{"arrays": {"a": 1}}, {"arrays": {"a": ["O", [1]]}}, {"arrays": []}, {"capacity": "many"}],
)
def test_a_stored_spec_refuses_what_it_cannot_read(path: Path, change: dict[str, object]) -> None:
    rewrite_spec(path, change)
    with pytest.raises(RingMismatch):
        stored_file_spec(path)


def test_every_flipped_bit_of_the_header_is_refused(path: Path) -> None:
    """No bit of magic, version, checksums, sizes, spec, generation, pid or partner is free."""
    original = path.read_bytes()
    covered = [*range(24), *range(64, 100), *range(128, 128 + len(spec().encode()))]
    for at in covered:
        for bit in (0, 7):
            damaged = bytearray(original)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(RingMismatch):
                RingFile.open(path, spec())
    path.write_bytes(original)
    RingFile.open(path, spec()).close()


@pytest.mark.parametrize("size", [0, 10, 100, PAGE, 3 * PAGE - 1, 3 * PAGE + 1])
def test_a_file_of_another_size_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)
    with pytest.raises(RingMismatch):
        RingFile.open(path, spec())


def test_too_little_space_is_said_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = namedtuple("free", "f_bavail f_frsize")(2, PAGE)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    with pytest.raises(ReplaySpaceError, match=r"12,288 bytes.*8,192 bytes") as caught:
        RingFile.create(tmp_path / "ring", spec(), Record())
    assert (caught.value.needed, caught.value.free) == (12_288, 8_192)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        os.truncate(fd, size // 2)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ReplaySpaceError) as caught:
        RingFile.create(tmp_path / "ring", spec(), Record())
    assert caught.value.errno == code
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_disk_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="broken disk") as caught:
        RingFile.create(tmp_path / "ring", spec(), Record())
    assert not isinstance(caught.value, ReplaySpaceError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["O", "U4", "S3", "M8[s]"])
def test_fields_have_a_fixed_size(dtype: str) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        Field((), dtype)


def test_fields_are_not_empty() -> None:
    with pytest.raises(ValueError, match="empty axis"):
        Field((3, 0), "uint8")


# -- one writer, and room for what it writes -----------------------------------------------------


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "new"
    first = RingFile.create(path, spec(), Record())
    with pytest.raises(RunInUse, match=f"in use by another process .pid {os.getpid()} opened"):
        RingFile.open(path, spec())
    RingFile.open(path, spec(), readonly=True).close()
    assert locked(path), "a descriptor that is closed elsewhere takes nothing away"
    view = first.arrays["frame"]
    first.close()
    assert view.shape == (2, 5, 7) and not locked(path), "not even while a view is held"
    RingFile.open(path, spec()).close()


def test_holes_are_filled_when_a_writer_opens_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, frame = tmp_path / "new", Field((2, 5, 70_000), "uint8")
    big = spec(arrays={"cursors": Field((2, 2), "int64"), "frame": frame})
    RingFile.create(path, big, Record()).close()
    data, blocks = path.read_bytes(), path.stat().st_blocks
    with open(path, "r+b") as file:  # as a copy that keeps holes would have made it
        file.truncate(4096)
        file.truncate(len(data))
    assert path.stat().st_blocks < blocks
    RingFile.open(path, big, readonly=True).close()
    assert path.stat().st_blocks < blocks, "who only reads takes nothing"
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(ReplaySpaceError):
            RingFile.open(path, big)
    RingFile.open(path, big).close()
    assert path.stat().st_blocks >= blocks and path.read_bytes()[:4096] == data[:4096]


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_mapped_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(ring.mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match=r"new of .* bytes cannot be mapped .*ulimit -v"):
        RingFile.create(tmp_path / "new", spec(), Record())
    assert list(tmp_path.iterdir()) == []
