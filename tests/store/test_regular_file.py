"""Files that may come from anyone: pipes, devices, links and giants cost a line, and no waiting."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamer_async.store import exit_codes
from dreamer_async.store.regular_file import NotRegular, open_regular, read_regular, reading


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.with_name("target").write_text("x")
    path.symlink_to(path.with_name("target"))


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def directory(path: Path) -> None:
    path.mkdir()


def listener(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def device(path: Path) -> None:
    os.mknod(path, 0o020600, os.makedev(1, 3))


KINDS = [pipe, link, dangling, directory, listener, device]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT])
def test_what_is_no_file_is_not_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    flags: int,
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("x")
    if make is device and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    make(path)
    before, files = sorted(os.listdir()), len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotRegular, match=r"^x is a") as caught:
        open_regular(path, flags)
    assert caught.value.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO)
    assert exit_codes.of_system(caught.value) == exit_codes.CANNOT == 73
    assert sorted(os.listdir()) == before, "nothing is made behind a link"
    assert len(os.listdir("/proc/self/fd")) == files, "nothing stays open"


@pytest.mark.parametrize("make", [pipe, link, directory])
def test_what_is_put_there_in_the_last_moment_is_not_opened_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    path, regular = tmp_path / "x", tmp_path / "regular"
    regular.touch()
    make(path)
    real = os.lstat(regular)
    monkeypatch.setattr(os, "lstat", lambda _: real)
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == files


def test_regular_files_are_opened_and_made(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        open_regular(path)
    os.close(open_regular(path, os.O_RDWR | os.O_CREAT))
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with reading(path) as file:
        assert os.pread(file.fileno(), 2, 3) == b"45" == file.read()[3:]
    assert file.closed


def test_a_giant_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 40)  # holes only
    with pytest.raises(ValueError, match="x is larger than 1,000,000 bytes"):
        read_regular(path, 1_000_000)
