"""Checkpoints: atomic directories of safetensors plus a manifest with hashes.

    checkpoints/step-000012345/state.safetensors    every tensor
    checkpoints/step-000012345/manifest.json        counters, RNG, replay cursors, hashes

Save order: temporary directory, files + fsync, manifest + fsync, fsync of the directory,
rename, fsync of the parent. Whatever instant a crash hits, the directory under its final name
is complete or absent. Nothing here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from dreamer_async.config.schema import parse_json
from dreamer_async.store.regular_file import NotRegular, read_regular, reading
from dreamer_async.store.run_dir import RunDir

FORMAT = 1
STATE = "state.safetensors"
MANIFEST = "manifest.json"
OWN_HASH = "manifest_sha256"
"""Key of the manifest's hash of everything else in it."""
_NAME = re.compile(r"step-([0-9]+)(?:\.([0-9]+))?")
NOWHERE = (-1, -1)
"""What a directory that is no checkpoint has for a step."""
MAX_MANIFEST = 1 << 26
"""Longest manifest that is parsed, in bytes; the queue of a large replay takes some of them."""
MAX_HEADER = 1 << 20
"""Longest safetensors header that is parsed, in bytes (a hostile one costs minutes)."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or does not verify; the message names file and reason."""


class NotFinite(CheckpointError):
    """What was to be saved holds numbers that are not finite."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, copied into memory."""

    path: Path
    tensors: dict[str, Tensor]
    manifest: dict[str, Any]
    skipped: tuple[str, ...] = ()
    """Those that would have come first and did not verify, each with its reason."""


def save(
    directory: Path, step: int, tensors: dict[str, Tensor], manifest: dict[str, Any], keep: int
) -> Path:
    """Write `step-N` atomically, then remove the oldest ones beyond `keep`, but not the best.

    Raises CheckpointError for non-finite tensors and OSError where the disk refuses; older
    checkpoints are untouched in both cases.
    """
    assert keep >= 2, f"keep {keep}: the newest one may be the one that is being written"
    _refuse_non_finite(tensors)
    directory.mkdir(parents=True, exist_ok=True)
    final = _free_name(directory, step)
    temporary = directory / f".tmp-{step:012d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(temporary, tensors, manifest)
        os.rename(temporary, final)
        _fsync(directory)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # what the library makes of a full disk
            raise OSError(_errno(error), f"cannot write {final.name}: {error}") from error
        raise
    _prune(directory, keep)
    return final


def write(directory: Path, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    """Write a checkpoint's files into an empty directory outside of any run, to pass it on.

    Raises CheckpointError for non-finite tensors.
    """
    _refuse_non_finite(tensors)
    _write(directory, tensors, manifest)


def make_room(directory: Path) -> int:
    """Remove litter and what is older than the newest checkpoint that verifies; bytes freed.

    For a disk that has no room for one more: while nothing newer is written, that one stays.
    """
    paths = list(candidates(directory))
    good = next((place for place, path in enumerate(paths) if _verifies(path)), len(paths))
    doomed = [*paths[good + 1 :], *directory.glob(".tmp-*"), *directory.glob(".del-*")]
    freed = sum(file.stat().st_size for path in doomed for file in path.rglob("*"))
    for path in paths[good + 1 :]:
        _remove(path)
    sweep(directory)
    return freed


def newest(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and why newer ones were skipped."""
    return _first_valid(candidates(directory))


def to_resume(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint that verifies; raises CheckpointError if all there are do not.

    A run that was killed before its first checkpoint has none at all, and may go on.
    """
    found, skipped = newest(directory)
    if found is None and skipped:
        raise CheckpointError("no valid checkpoint: " + "; ".join(skipped))
    return found and replace(found, skipped=tuple(skipped))


def best(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint with the highest score that verifies, and why others were skipped.

    Of equal ones, and where none has a score yet, the newest.
    """
    return _first_valid(sorted(candidates(directory), key=_score, reverse=True))


def need(run_path: Path, *, of_best: bool = False) -> Checkpoint:
    """Return the newest checkpoint of a run that verifies, or the best; raises CheckpointError."""
    found, skipped = (best if of_best else newest)(run_path / "checkpoints")
    if found is None:
        reasons = "; ".join(skipped) or _nothing_in(run_path)
        raise CheckpointError(f"no valid checkpoint in {run_path}: {reasons}")
    return replace(found, skipped=tuple(skipped))


def _nothing_in(run_path: Path) -> str:
    """Why there is no checkpoint at all."""
    if not run_path.is_dir():
        return "there is no such directory"
    if not RunDir(run_path).exists():
        return "it is no run"
    return "nothing was saved yet (the key c of its dashboard saves)"


def _first_valid(paths: Iterable[Path]) -> tuple[Checkpoint | None, list[str]]:
    skipped: list[str] = []
    for path in paths:
        try:
            return read(path), skipped
        except CheckpointError as error:
            skipped.append(str(error))
    return None, skipped


def _verifies(path: Path) -> bool:
    """Whether the files of a checkpoint match their hashes, in little memory."""
    try:
        manifest = parse_json(read_regular(path / MANIFEST, MAX_MANIFEST))
        with reading(path / STATE) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return manifest["sha256"] == digest and manifest[OWN_HASH] == _manifest_hash(manifest)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _errno(error: SafetensorError) -> int:
    """The number of the system's error behind one of the library, which says it in its text."""
    found = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(found[1]) if found else errno.EIO


def candidates(directory: Path) -> Iterator[Path]:
    """Yield what has the name of a checkpoint and is no file, newest first; `read` tells if it is.

    Raises CheckpointError for a link in place of their directory.
    """
    if directory.is_symlink():
        raise CheckpointError(f"{directory} is a symbolic link, which is not followed")
    if directory.is_dir():
        found = ((_place(path.name), path) for path in directory.iterdir() if not path.is_file())
        yield from (path for place, path in sorted(found, reverse=True) if place != NOWHERE)


def newest_manifest(directory: Path) -> Mapping[str, Any]:
    """The newest manifest that can be read, without its tensors; empty if there is none.

    Nothing is verified: `read` may yet refuse its checkpoint.
    """
    for path in candidates(directory):
        with contextlib.suppress(OSError, ValueError):
            if isinstance(manifest := _manifest(path), Mapping):
                return manifest
    return {}


def _manifest(path: Path) -> Any:
    return parse_json(read_regular(path / MANIFEST, MAX_MANIFEST))


def read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint: hash, header, finite values.

    The tensors are copies: `load_file` would map the file, and pruning it later would crash.
    """
    try:
        if path.is_symlink():
            raise NotRegular(errno.ELOOP, "it is a symbolic link, which is not followed")
        manifest = _manifest(path)
        _verify_manifest(path, manifest)
        data = read_regular(path / STATE, _size(manifest))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: unreadable ({error})") from error
    _verify_state(path, manifest, data)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path.name}: {STATE} is not valid ({error})") from error
    _refuse_non_finite(tensors, path.name, CheckpointError)
    return Checkpoint(path, tensors, manifest)


def _size(manifest: Mapping[str, Any]) -> int:
    """Bytes that the state has by its manifest: no more are read."""
    size = manifest.get("bytes")
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"{MANIFEST} gives no size of {STATE}")
    return size


def sweep(directory: Path) -> int:
    """Remove what a crash left behind; call only while holding the run's lock."""
    litter = [*directory.glob(".tmp-*"), *directory.glob(".del-*")]
    for path in litter:
        _discard(path)
    return len(litter)


def _discard(path: Path) -> None:
    """Remove a directory, or what is in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _verify_manifest(path: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path.name}: {MANIFEST} is not of format {FORMAT}")
    if OWN_HASH not in manifest:
        raise CheckpointError(f"{path.name}: {MANIFEST} has no {OWN_HASH}, its own hash")
    if manifest[OWN_HASH] != _manifest_hash(manifest):
        raise CheckpointError(f"{path.name}: {MANIFEST} does not match its own hash")


def _verify_state(path: Path, manifest: Mapping[str, Any], data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
        raise CheckpointError(f"{path.name}: {STATE} does not match its hash")
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise CheckpointError(f"{path.name}: header of {STATE} is longer than {MAX_HEADER} bytes")


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _refuse_non_finite(
    tensors: dict[str, Tensor],
    where: str = "state",
    kind: type[CheckpointError] = NotFinite,
) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise kind(f"{where}: {name} is not finite")


def _write(directory: Path, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    state = directory / STATE
    save_file(tensors, state)
    _fsync(state)
    with open(state, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        **manifest,
        "format": FORMAT,
        "sha256": digest,
        "bytes": state.stat().st_size,
        "saved": time.time(),
    }
    record[OWN_HASH] = _manifest_hash(record)
    with open(directory / MANIFEST, "xb") as file:
        file.write(json.dumps(record, allow_nan=False, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    _fsync(directory)


def _free_name(directory: Path, step: int) -> Path:
    """Name a new checkpoint; one of the same step (a stop right after a save) is never replaced."""
    places = [_place(path.name) for path in candidates(directory)]
    taken = max((number for at, number in places if at == step), default=-1)
    return directory / (f"step-{step:012d}" + (f".{taken + 1:03d}" if taken >= 0 else ""))


def _place(name: str) -> tuple[int, int]:
    """Step, and number among those of the same step, that the name of a directory gives."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else NOWHERE


def _prune(directory: Path, keep: int) -> None:
    paths = list(candidates(directory))
    good = max(paths, key=_score)
    for path in paths[keep:]:
        if path != good:
            _remove(path)


def _score(path: Path) -> float:
    """The mean score of the episodes before a save; minus infinity if there is none."""
    try:
        score = float(_manifest(path)["score"])
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return -math.inf
    return score if math.isfinite(score) else -math.inf


def _remove(path: Path) -> None:
    doomed = path.with_name(f".del-{path.name}-{os.getpid()}")
    os.rename(path, doomed)
    _discard(doomed)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
