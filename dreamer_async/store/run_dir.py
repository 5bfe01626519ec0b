"""The run directory: the name of every path in it, its lock, and requests to its trainer.

A run is a directory `<YYYYmmdd-HHMMSS>-<suite>-<task>` below a root such as runs/. One trainer
at a time holds its lock (a POSIX record lock, gone when the process is, however it ended).
Files in it may come from someone else: names are checked, symbolic links are refused and
nothing that is read can name code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamer_async.config.schema import nearest, shown
from dreamer_async.store.control_dir import ControlDir, Request
from dreamer_async.store.events import EventReader
from dreamer_async.store.json_file import write_json_atomic
from dreamer_async.store.run_lock import RunLock

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
LONGEST_LABEL = 100
"""Letters of the readable part of a name."""
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Experiment trackers that a run may have a folder of."""
DRAFT = ".tmp"
"""Ending of a replay file that is not finished."""


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What is wrong with paths that lead nowhere."""


class RunNotFound(ValueError):
    """There is no such run; the message names close matches."""


class RunDir:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = self.path.name
        self._place: RunDir | None = None
        """Where the directory that is held was last."""
        self.config_path = self.path / "config.json"
        self.events_path = self.path / "events.jsonl"
        self.log_path = self.path / "log.txt"
        self.lock_path = self.path / "lock"
        self.checkpoints = self.path / "checkpoints"
        self.control = self.path / "control"
        self.pictures = self.path / "pictures"
        self.film_path = self.pictures / "film.npz"
        self.replay_path, self.latents_path = self.replay_paths()

    def tracker(self, name: str) -> Path:
        """Folder of an experiment tracker, which is there if the run is tracked by it."""
        return self.path / name

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunDir) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    # -- finding and making ------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        root: Path,
        task: str,
        *,
        config: Mapping[str, Any] | None = None,
        now: Callable[[], float] | None = time.time,
    ) -> RunDir:
        """Make a new run directory below `root`, complete or not at all.

        `task` becomes the readable part of the name, or, without `now`, the name itself, which
        nothing else below `root` may have then (FileExistsError); `config` is stored as
        config.json.
        """
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", task).strip("-.")[:LONGEST_LABEL] or "run"
        root.mkdir(parents=True, exist_ok=True)
        scratch = root / f".new-{secrets.token_hex(8)}"
        scratch.mkdir()
        try:
            for name in ("checkpoints", "pictures"):
                (scratch / name).mkdir()
            (scratch / "control").mkdir(mode=0o700)
            if config is not None:
                write_json_atomic(scratch / "config.json", config)
            if now is None:
                return cls(_publish_as(scratch, root / label))
            return cls(_publish(scratch, root, label, now()))
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    @classmethod
    def find(cls, root: Path, ref: str) -> RunDir:
        """Look a run up by `last`, by name below `root`, or by path; raises RunNotFound."""
        if ref == "last":
            runs = list_runs(root)
            if not runs:
                raise RunNotFound(
                    f"there are no runs in {root}; start one with `dreamer-async train`"
                )
            runs[0].refuse_links()
            return runs[0]
        path = Path(ref).absolute() if os.sep in ref else root.absolute() / ref
        if os.sep in ref and not path.exists():
            path = root.absolute() / ref  # SWEEP/RUN
        name = path.name if os.sep in ref else ref
        if "\0" in ref or not RUN_NAME.fullmatch(name) or ".." in path.parts:
            raise RunNotFound(f"not a run name: {shown(ref)} (`dreamer-async runs` lists them)")
        run = cls(path)
        if (path / "sweep.json").is_file():
            raise RunNotFound(f"{shown(ref)} is a sweep: name one of its runs, {ref}/RUN")
        if not run.exists():
            names = [r.name for r in reversed(list_runs(root))]
            newest = {_label(name): name for name in names}
            hint = nearest(ref, [*names, *newest], newest)
            where = "" if os.sep in ref else f" in {root}"
            raise RunNotFound(f"there is no run {shown(ref)}{where}{hint}")
        run.refuse_links()
        return run

    def exists(self) -> bool:
        """Tell whether this is a run: a real directory with a config in it."""
        return self.path.is_dir() and not self.path.is_symlink() and self.config_path.is_file()

    def began(self) -> float:
        """Unix time of the run's first event, or of its config before there is any.

        Nothing begins after the file that says so was written last.
        """
        with contextlib.suppress(OSError):
            records = EventReader(self.events_path).read(1 << 16)
            if records:
                return min(records[0].time, self.events_path.lstat().st_mtime)
        try:
            return self.config_path.lstat().st_mtime
        except OSError:
            return 0.0

    def refuse_links(self) -> None:
        """Raise RunNotFound if a file that a trainer would write is a symbolic link."""
        for path in (
            self.config_path,
            self.events_path,
            self.log_path,
            self.lock_path,
            self.checkpoints,
            self.control,
            self.pictures,
            self.path / "ranks",
            *map(self.tracker, TRACKERS),
            self.replay_path,
            self.latents_path,
        ):
            if path.is_symlink():
                raise RunNotFound(f"{path} is a symbolic link; runs with links are not opened")

    # -- while it trains ---------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[RunDir]:
        """The same run through an open descriptor, so that renaming the directory changes nothing.

        Where the system has no /proc it is the run itself.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            path = Path(f"/proc/self/fd/{descriptor}")
            same = path.exists() and path.samefile(self.path)
            run = RunDir(path if same else self.path)
            run.name = self.name
            run._place = self
            yield run
        finally:
            os.close(descriptor)

    def place(self) -> RunDir:
        """Where a directory that is held is now, under its name of now; itself if it is not held.

        Where it was last, if it has been removed or the system has no /proc.
        """
        last = self._place or self
        if not _same(last.path, self.path):
            with contextlib.suppress(OSError):
                moved = RunDir(Path(os.readlink(self.path)))
                last = moved if _same(moved.path, self.path) else last
        self._place = None if last is self else last
        return last

    def removed(self) -> bool:
        """Whether the directory that is held has been removed."""
        try:
            return self.path.stat().st_nlink == 0
        except FileNotFoundError:
            return True
        except OSError:
            return False

    # -- the replay files --------------------------------------------------------------------

    def replay_paths(self, directory: str = "") -> tuple[Path, Path]:
        """Where ring and latents live: in the run, or in another directory under a unique name."""
        if not directory:
            return self.path / "replay.ring", self.path / "replay.latents"
        digest = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:8]
        stem = Path(directory).absolute() / f"dreamer-async-{self.name}-{digest}"
        return Path(f"{stem}.ring"), Path(f"{stem}.latents")

    def rank(self, number: int) -> RunDir:
        """Where one of several ranks keeps its replay."""
        return RunDir(self.path / "ranks" / str(number))

    def ranks(self) -> list[RunDir]:
        """Those that have kept anything, in any order."""
        try:
            names = os.listdir(self.path / "ranks")
        except OSError:
            return []
        return [self.rank(int(name)) for name in names if name.isascii() and name.isdigit()]

    def shares(self, directory: str = "") -> int:
        """How many rings the environments of the run are divided among; 0 without a replay."""
        return len(self.ranks()) or int(self.replay_paths(directory)[0].exists())

    def free_replay(self, directory: str = "") -> int:
        """Delete the ring and the latents, wherever they are; returns the bytes freed."""
        freed = 0
        for path in self.replay_files(directory):
            freed += bytes_of(path)
            path.unlink(missing_ok=True)
        for rank in self.ranks():
            freed += rank.free_replay(directory)
            with contextlib.suppress(OSError):
                rank.path.rmdir()
        return freed

    def replay_files(self, directory: str = "") -> list[Path]:
        """What there is of the ring and the latents, finished or not, wherever they are."""
        places = ("", directory, "/dev/shm")  # noqa: S108  where latents may be cached
        paths = {path for place in places for path in self.replay_paths(place)}
        drafts = {path.with_name(path.name + DRAFT) for path in paths}
        return sorted(path for path in paths | drafts if _is_file(path))

    # -- the lock ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; raises RunInUse at once if someone else has it.

        Requests that an earlier trainer left behind are thrown away. Their directory is closed to
        other users again, whatever happened to it since; PermissionError if it is theirs, or a
        link.
        """
        with RunLock(self.lock_path, self.name).hold():
            ControlDir(self.control).claim()
            yield

    def owner(self) -> dict[str, Any] | None:
        """Who trains in this run now: pid, host and since (unix seconds); None if nobody does."""
        return RunLock(self.lock_path, self.name).owner()

    # -- requests ----------------------------------------------------------------------------

    def request(self, command: str, **args: Any) -> None:
        """Ask the trainer for something; it takes requests in the order of their time."""
        ControlDir(self.control).ask(command, args)

    def take_requests(self) -> list[Request]:
        """Take all waiting requests, oldest first."""
        return ControlDir(self.control).take()


def _publish(scratch: Path, root: Path, label: str, now: float) -> Path:
    """Rename the finished directory to the first free second, so that names sort by creation."""
    while True:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        path = root / f"{stamp}-{label}"
        try:
            if not any(name.startswith(stamp) for name in os.listdir(root)):
                scratch.rename(path)
                return path
        except OSError:
            if not path.exists():
                raise
        now += 1


def _label(name: str) -> str:
    """The part of a run's name that its user chose, without the time when it was made."""
    return re.sub(r"^\d{8}-\d{6}-", "", name)


def _publish_as(scratch: Path, path: Path) -> Path:
    """Rename the finished directory to a name that must be free."""
    path.mkdir()  # renaming alone would replace an empty directory of anybody's
    scratch.rename(path)
    return path


def _same(path: Path, other: Path) -> bool:
    """Whether both paths lead to one directory."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def bytes_of(path: Path) -> int:
    """Bytes that a file takes on the disk; 0 where there is none, or cannot be any."""
    status = _status(path)
    return 0 if status is None else status.st_blocks * 512


def _is_file(path: Path) -> bool:
    """Tell whether there is something that could be unlinked."""
    status = _status(path)
    return status is not None and not stat.S_ISDIR(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
    """What `lstat` says; None where there is nothing, PermissionError where that is secret."""
    try:
        return path.lstat()
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
    return None


def list_runs(root: Path) -> list[RunDir]:
    """All runs below `root`, the one that was started last first."""
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    runs = [RunDir(root / name) for name in names if RUN_NAME.fullmatch(name)]
    return sorted(
        filter(RunDir.exists, runs), key=lambda run: (run.began(), run.name), reverse=True
    )
