"""Where compiled code is kept: it is loaded and run, so only where nobody but this user can write.

That is `~/.cache/dreamer-async`, or what TORCHINDUCTOR_CACHE_DIR names (if not the directory that
torch takes by itself). Where that cannot be
trusted or written, a process gets a directory of its own, which goes when it ends.
"""

from __future__ import annotations

import atexit
import fcntl
import getpass
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer_async.store.directory import make_private

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
OWN = "dreamer-async-cache-"
"""How the directories begin that belong to one process."""


def isolate_compile_cache() -> None:
    """Choose the cache of this process and those that it starts; says so if it cannot be kept."""
    given = os.environ.get(VARIABLE)
    if given == str(header_cache()):  # torch's own choice, which some of its modules put there
        given = None
    where, trouble = (given, _trouble(Path(given))) if given else _usual()
    if trouble:
        where = str(_of_this_process() / "inductor")
        print(
            f"warning: compiled code cannot be kept, every start builds it again: {trouble}",
            file=sys.stderr,
            flush=True,
        )
    os.environ[VARIABLE] = where
    Path(where).mkdir(parents=True, exist_ok=True, mode=0o700)
    if not make_private(header_cache()):
        os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")


def _usual() -> tuple[str, str]:
    """The cache below the home directory, and what is wrong with it."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    except RuntimeError:
        return "", "this user has no home directory (set HOME or TORCHINDUCTOR_CACHE_DIR)"
    cache = base / "dreamer-async"
    for directory in (cache, cache / "inductor"):
        if not directory.is_symlink():
            make_private(directory)
        if trouble := _trouble(directory):
            return "", trouble
    return str(cache / "inductor"), ""


def _trouble(directory: Path) -> str:
    """Why no code may be kept in a directory, which is made if it is missing; empty if it may."""
    try:
        if directory.is_symlink():
            return f"{directory} is a symbolic link, which is not followed"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.lstat()
        if status.st_uid != os.geteuid():
            return f"{directory} belongs to another user"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others can write in {directory} (chmod 700 closes it)"
        exposed = [parent for parent in directory.resolve().parents if _exposed(parent)]
    except OSError as error:
        return f"{directory}: {error.strerror}"
    if exposed:
        return f"others can replace what is in {exposed[0]}"
    return "" if os.access(directory, os.W_OK) else f"{directory} cannot be written"


def _exposed(directory: Path) -> bool:
    """Tell whether another user may rename what is in a directory."""
    status = directory.stat()
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    return bool(open_to_all) or status.st_uid not in (0, os.geteuid())


def _of_this_process() -> Path:
    """Make a directory that goes with this process; those of killed ones go now."""
    sweep(Path(tempfile.gettempdir()), OWN)
    path = scratch(Path(tempfile.gettempdir()), OWN)
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(path, ignore_errors=True))
    return path


def scratch(directory: Path, prefix: str) -> Path:
    """Make a private directory that is this process's as long as it lives, see `sweep`."""
    while True:
        path = directory / f"{prefix}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        if _locked(path) and path.exists():  # a sweep may have been faster
            return path


def sweep(directory: Path, prefix: str) -> None:
    """Remove directories that `scratch` made for processes that are gone."""
    for path in directory.glob(f"{prefix}*"):
        with suppress(OSError):
            ours = path.lstat().st_uid == os.geteuid() and not path.is_symlink()
            if ours and path.is_dir() and _locked(path, keep=False):
                shutil.rmtree(path, ignore_errors=True)


def _locked(path: Path, *, keep: bool = True) -> bool:
    """Lock a directory, until this process ends or only to try; False if somebody has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        keep = False
        return False
    finally:
        if not keep:
            os.close(descriptor)
    return True


@contextmanager
def alone(directory: Path, seconds: float) -> Iterator[None]:
    """Wait until no other process is in this block for a directory, but no longer than `seconds`.

    Who waited finds what the other has built. One that was suspended, or a file system without
    locks, costs work and not a run.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + seconds
        while not _try_lock(descriptor) and time.monotonic() < end:
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock what is open here; False if somebody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # there are no locks here
    return True


def is_trusted(path: Path) -> bool:
    """Tell whether a file is there that only this user can have written."""
    try:
        status = path.lstat()
    except OSError:
        return False
    own = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return own and stat.S_ISREG(status.st_mode)


def header_cache() -> Path:
    """Where torch keeps precompiled C++ headers, whatever TORCHINDUCTOR_CACHE_DIR says.

    Spelled out here because the settings that depend on it are read when inductor is imported.
    """
    try:
        user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"
