"""A sweep on disk: a directory of ordinary runs, and one small file that says which belong to it.

The file says what is to be run, the runs themselves say how far they are: nothing is written twice.
Like a run, a sweep may come from someone else: names are checked and links are refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dreamer_async.config.schema import SchemaError, decode, encode, shown
from dreamer_async.store.control_dir import ControlDir, Request
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RUN_NAME, RunDir, RunNotFound
from dreamer_async.store.run_lock import RunLock

VERSION = 1
MOST_JOBS = 2000
"""Runs of a sweep: as many as its file has room for, with long settings."""
MOST_DEVICES = 1024
LONGEST_NAME = 64


@dataclass(frozen=True)
class Job:
    """One run of a sweep, made or not."""

    name: str
    """Of its directory inside the sweep's."""
    task: str
    size: str
    seed: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """What this run has and others of the sweep have not: dotted key -> value, as on a command
    line."""
    pruned: bool = False
    """A search has given it up; it is not to go on."""
    batch_id: str = ""
    """Of Slurm, where it was submitted."""

    @property
    def variant(self) -> str:
        """What it shares with the runs of other tasks and seeds, in words; mostly empty."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


@dataclass(frozen=True)
class Sweep:
    """What is to be run."""

    version: int
    suite: str
    settings: tuple[str, ...]
    """Of all its runs, as `key=value`."""
    jobs: tuple[Job, ...]
    search: Mapping[str, str] = field(default_factory=dict)
    """Ranges of a search: dotted key -> range, as on a command line."""
    trials: int = 0
    """Runs of a search."""
    devices: int = 1
    """How many each run learns on."""

    def changed(self, name: str, **values: Any) -> Sweep:
        """The same with something else in one job."""
        jobs = (replace(job, **values) if job.name == name else job for job in self.jobs)
        return replace(self, jobs=tuple(jobs))


class SweepDir:
    """One sweep on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = self.path.name
        self.file_path = self.path / "sweep.json"
        self.lock_path = self.path / "lock"
        self.search_path = self.path / "search.journal"
        self.batch = self.path / "slurm"
        self.control = self.path / "control"

    @classmethod
    def find(cls, root: Path, ref: str) -> SweepDir | None:
        """A sweep by name below `root`, or by path; None if that is none."""
        path = Path(ref) if os.sep in ref else root / ref
        if "\0" in ref or not RUN_NAME.fullmatch(path.name) or ".." in path.parts:
            return None
        sweep = cls(path)
        return sweep if sweep.exists() else None

    def exists(self) -> bool:
        """Tell whether this is a sweep: a real directory with its file in it."""
        own = self.path, self.file_path, self.lock_path, self.control
        links = any(path.is_symlink() for path in own)
        return not links and self.file_path.is_file()

    def read(self) -> Sweep:
        """What is to be run; ValueError that names the file if it does not say so."""
        try:
            sweep = decode(Sweep, read_json(self.file_path))
        except SchemaError as error:
            raise ValueError(f"{self.file_path}: {error}") from None
        if sweep.version != VERSION:
            raise ValueError(f"{self.file_path} is of version {sweep.version}, not {VERSION}")
        if wrong := [job.name for job in sweep.jobs if not RUN_NAME.fullmatch(job.name)]:
            raise ValueError(f"{self.file_path}: not a run name: {shown(wrong[0])}")
        if len({job.name for job in sweep.jobs}) < len(sweep.jobs):
            raise ValueError(f"{self.file_path}: two runs have one name")
        if not 1 <= sweep.devices <= MOST_DEVICES:
            raise ValueError(f"{self.file_path}: devices must be from 1 to {MOST_DEVICES}")
        return sweep

    def write(self, sweep: Sweep) -> None:
        """Replace the file, and make the directory if there is none."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self.file_path, encode(sweep))

    def run(self, job: Job) -> RunDir:
        """Where a run of it is, or will be."""
        return RunDir(self.path / job.name)

    def runs(self) -> list[RunDir]:
        """The runs that there are, in the order of the file."""
        runs = [self.run(job) for job in self.read().jobs]
        return [run for run in runs if run.exists()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep for this process; raises RunInUse at once if someone else has it.

        Requests to an earlier one are thrown away. PermissionError if their directory is somebody
        else's, or a link.
        """
        with RunLock(self.lock_path, self.name).hold():
            ControlDir(self.control).claim()
            yield

    def owner(self) -> dict[str, Any] | None:
        """Who carries it out now: pid, host and since (unix seconds); None if nobody does."""
        return RunLock(self.lock_path, self.name).owner()

    def request(self, command: str) -> None:
        """Ask whoever carries it out for something."""
        ControlDir(self.control).ask(command, {})

    def take_requests(self) -> list[Request]:
        """Take all waiting requests, oldest first."""
        return ControlDir(self.control).take()


def find_runs(root: Path, refs: Sequence[str]) -> list[RunDir]:
    """Look up runs, with all those of a sweep in place of its name; raises RunNotFound."""
    found: dict[Path, RunDir] = {}
    for ref in refs:
        sweep = SweepDir.find(root, ref)
        runs = [RunDir.find(root, ref)] if sweep is None else sweep.runs()
        if not runs:
            raise RunNotFound(f"no run of the sweep {ref} has been made yet")
        for run in runs:
            run.refuse_links()
            found.setdefault(run.path, run)
    return list(found.values())


def list_sweeps(root: Path) -> list[SweepDir]:
    """All sweeps below `root`, by name."""
    try:
        names = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [sweep for name in names if (sweep := SweepDir.find(root, name))]
