"""Deleting runs, and nothing that is none; what a killed deletion or start left behind, too."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dreamer_async.config import ConfigError
from dreamer_async.config.schema import shown
from dreamer_async.store.events import EventReader
from dreamer_async.store.run_dir import DRAFT, RunDir, bytes_of, list_runs
from dreamer_async.store.run_lock import RunInUse, RunLock, locked
from dreamer_async.store.sizes import in_words
from dreamer_async.store.summary import disk_usage, load_config
from dreamer_async.store.sweep_dir import SweepDir, list_sweeps

_LAYOUT = ("checkpoints", "control", "pictures")
"""Directories that every run is made with."""
_OURS = re.compile(
    r"(config\.json|events\.jsonl|log\.txt|lock|replay\.(ring|latents)(\.tmp)?)"
    r"|checkpoints(/step-[0-9]+(\.[0-9]+)?(/(state\.safetensors|manifest\.json))?)?"
    r"|checkpoints/\.(tmp|del)-.*"
    r"|control(/([^/]+\.json|session\.sock))?"
    r"|pictures(/(film\.npz|dream\.gif))?"
    r"|ranks(/launch\.json|/[0-9]+(/replay\.(ring|latents)(\.tmp)?)?)?"
    r"|tensorboard(/events\.out\.tfevents[^/]*)?"
    r"|(wandb|trackio|mlflow)(/.*)?"
    r"|([a-z]+/)?\.tmp-[0-9a-f]{16}"
)
"""Paths of files and directories that a trainer makes, relative to its run."""
_LINKED = re.compile(r"wandb/wandb/.*")
"""Where W&B makes links of its own; what they lead to is not followed."""
_OF_SWEEP = {"sweep.json", "lock", "search.journal", "slurm", "control"}
"""What is in the directory of a sweep besides its runs."""
_LEFT = re.compile(r"\.(del|new)-[0-9a-f]{16}")
_LEFT_IN_SWEEP = re.compile(r"\.(del|new|tmp)-[0-9a-f]{16}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
STALE_SECONDS = 3600.0
"""After so long a directory that becomes a run belongs to no command that is still at it."""


def check(run: RunDir, root: Path, ref: str, *, sure: bool) -> None:
    """Refuse to delete what is no run, holds other files too, or lies where nobody would expect.

    Raises ConfigError. `ref` is how the user called it, `sure` that nobody wants to be asked.
    """
    here = run.path.resolve()
    if here.parent != root.resolve() and not (Path(ref).is_absolute() and sure):
        raise ConfigError(
            f"{shown(ref)} is not in {root}: to delete it, give its absolute path and --yes"
        )
    if Path.cwd().resolve().is_relative_to(here):
        raise ConfigError(f"the working directory is {run.name} or in it: leave it first")
    if not is_run(run):
        raise ConfigError(f"{run.path} is not a run: it has neither our settings nor our events")
    if others := foreign(run):
        raise ConfigError(
            f"{run.name} holds files that no trainer made ({', '.join(others)}): "
            "move them, or delete the directory yourself"
        )


def check_sweep(sweep: SweepDir, root: Path) -> None:
    """Refuse to delete a sweep that is carried out, lies elsewhere, or holds what is not ours."""
    if sweep.path.resolve().parent != root.resolve():
        raise ConfigError(f"{sweep.path} is not in {root}: delete it yourself")
    if owner := sweep.owner():
        raise RunInUse(f"{sweep.name} is carried out by pid {owner['pid']}: stop it first")
    known = {run.name for run in sweep.runs()} | _OF_SWEEP
    names = {path.name for path in _entries(sweep.path) if not _LEFT_IN_SWEEP.fullmatch(path.name)}
    if others := sorted(names - known):
        raise ConfigError(
            f"{sweep.name} holds files that no sweep made ({', '.join(map(shown, others[:3]))}): "
            "move them, or delete the directory yourself"
        )


def remove_sweep(sweep: SweepDir) -> None:
    """Delete a sweep whose runs are gone; raises RunInUse if somebody carries it out."""
    with sweep.lock():
        doomed = sweep.path.with_name(f".del-{secrets.token_hex(8)}")
        sweep.path.rename(doomed)
    _erase(doomed)


def is_run(run: RunDir) -> bool:
    """Tell whether a directory was made by us: its settings, its events or its parts say so."""
    with contextlib.suppress(ConfigError):
        load_config(run)
        return True
    with contextlib.suppress(OSError):
        if EventReader(run.events_path).read(1 << 16):
            return True
    return all((run.path / name).is_dir() for name in _LAYOUT)


def foreign(run: RunDir, most: int = 3) -> list[str]:
    """Name some files and directories of a run that are not ours."""
    found: list[str] = []
    for folder, directories, files in os.walk(run.path):
        for name in sorted([*directories, *files]):
            path = Path(folder, name)
            relative = path.relative_to(run.path).as_posix()
            link = path.is_symlink() and not _LINKED.fullmatch(relative)
            if link or not _OURS.fullmatch(relative):
                found.append(shown(relative))
        if len(found) >= most:
            break
    return found[:most]


def remove(run: RunDir, *, only_replay: bool = False) -> int:
    """Delete a run, or only its replay, wherever that is; returns the bytes freed.

    Raises RunInUse if someone trains in it. A run leaves the list at once, then its files go.
    """
    with _alone(run):
        freed = run.free_replay(replay_directory(run))
        if only_replay:
            return freed
        freed += disk_usage(run)
        doomed = run.path.with_name(f".del-{secrets.token_hex(8)}")
        try:
            run.path.rename(doomed)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            doomed = run.path
    _erase(doomed)
    return freed


@contextlib.contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    """Keep trainers out of a run; where a full disk has no room for a lock, it keeps them out."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(RunLock(run.lock_path, run.name).hold())
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        for path in run.replay_files(replay_directory(run)):
            if locked(path):  # a trainer whose lock was deleted
                raise RunInUse(f"{path} is in use: a trainer is running in {run.name}")
        yield


def _erase(path: Path) -> None:
    """Delete a directory; somebody else may do so, too."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def replay_directory(run: RunDir) -> str:
    """Where else the replay is; a run whose config cannot be read keeps it inside."""
    try:
        return load_config(run).replay.directory
    except ConfigError:
        return ""


def leftovers(root: Path) -> list[Path]:
    """What killed commands left below `root`, in its sweeps, and where its runs keep replays."""
    folders = [root, *(sweep.path for sweep in list_sweeps(root))]
    entries = [path for folder in folders for path in _entries(folder)]
    found = [path for path in entries if _LEFT.fullmatch(path.name) and _abandoned(path)]
    for place in {replay_directory(run) for run in list_runs(root)} - {""}:
        drafts = (p for p in _entries(Path(place)) if p.name.startswith("dreamer-async-"))
        found += [path for path in drafts if path.suffix == DRAFT and _abandoned(path)]
    return sorted(found)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (OSError, ValueError):
        return []


def _abandoned(path: Path) -> bool:
    """Tell whether something of this user's is no longer worked on."""
    try:
        status = path.lstat()
        if status.st_uid != os.geteuid() or path.is_symlink():
            return False
        if path.name.startswith(".new-"):
            return time.time() - status.st_mtime > STALE_SECONDS
        return path.name.startswith(".del-") or not locked(path)
    except OSError:
        return False


def size_of(path: Path) -> int:
    """Bytes that a file, or a directory with all that is in it, takes on the disk."""
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return bytes_of(path) + sum(map(bytes_of, files))


def sweep(root: Path) -> list[str]:
    """Delete what killed commands left behind; says so, a line each."""
    lines = []
    for path in leftovers(root):
        size = size_of(path)
        with contextlib.suppress(OSError):
            if path.is_dir():
                _erase(path)
            else:
                path.unlink(missing_ok=True)
            lines.append(f"removed {path}, left by a killed command ({in_words(size)})")
    return lines
