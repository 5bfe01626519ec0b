"""Folders of npz files, as ports of Dreamer and the official replay save them.

Legend: T steps of a file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_async.config import ConfigError
from dreamer_async.replay.recording import Array, Recording, is_passed_over
from dreamer_async.store.regular_file import DAMAGED_ARRAYS, reading


@dataclass(frozen=True)
class NpzFile(Recording):
    """One file, whose name is its path."""

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Those arrays that it has; ConfigError if it cannot be read."""
        try:
            with reading(Path(self.name)) as file, np.load(file, allow_pickle=False) as data:
                return {name: data[name] for name in names if name in data.files}
        except (OSError, ValueError, *DAMAGED_ARRAYS) as error:
            raise ConfigError(f"{self.name} cannot be read: {error}") from None


def npz_files(folder: Path) -> list[NpzFile]:
    """Every file of a folder, in the order of their names; ConfigError for what is none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise ConfigError(f"{folder} has no .npz files (and is neither a run nor a Minari dataset)")
    found = [_look(path) for path in paths]
    for each in found:
        _compare(found[0], each)
    return found


def _look(path: Path) -> NpzFile:
    """Read the headers of a file's arrays and check what all files need."""
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with reading(path) as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = _header(member)
    except (OSError, ValueError, *DAMAGED_ARRAYS) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    for name in ("action", "reward"):
        if name not in arrays:
            raise ConfigError(f"{path} has no {name!r}; it has {sorted(arrays)}")
    if "is_terminal" not in arrays and "discount" not in arrays:
        raise ConfigError(
            f"{path} has neither 'is_terminal' nor 'discount', so it is unknown which episodes "
            "the task ended; add is_terminal, bool [T]"
        )
    used = {name: it for name, it in arrays.items() if not is_passed_over(name)}
    lengths = {name: shape[0] if shape else -1 for name, (shape, _) in used.items()}
    if len(set(lengths.values())) > 1 or min(lengths.values()) < 1:
        raise ConfigError(f"{path} needs as many steps in every array, it has {lengths}")
    headers = {name: (shape[1:], kind) for name, (shape, kind) in arrays.items()}
    return NpzFile(str(path), lengths["reward"], headers)


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it has an array of Python objects")
    return shape, dtype


def _compare(first: NpzFile, other: NpzFile) -> None:
    """Refuse files that are not of one kind."""
    for name in first.arrays.keys() | other.arrays.keys():
        if is_passed_over(name):
            continue
        one, two = first.arrays.get(name), other.arrays.get(name)
        if one != two:
            raise ConfigError(
                f"{other.name} has {_kind(two)} for {name!r}, "
                f"but {Path(first.name).name} {_kind(one)}"
            )


def _kind(array: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "nothing" if array is None else f"{array[1]} {list(array[0])}"
