"""The newest film of the world model: read, checked, and cut into frames.

The file was written by a trainer, but may come from anyone: it is bounded, never unpickled, and
everything in it is checked before it is shown.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dreamer_async.store.regular_file import DAMAGED_ARRAYS, reading
from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.read.state import number

MAX_BYTES = 64_000_000
VERSIONS = ("real", "reconstruction", "open-loop dream")
"""What the three versions of a sequence are."""

Pixels = NDArray[np.uint8]
"""[H, W, 3]."""


class Shot(NamedTuple):
    """One sequence of one observation key."""

    key: str
    row: int
    is_image: bool


@dataclass(frozen=True, eq=False)
class Film:
    """A few sequences, each in three versions."""

    update: int
    env_steps: int
    time: float
    """Unix seconds."""
    context: int
    """Steps that the dream has seen."""
    is_first: NDArray[np.bool_]
    """[R, T] where an episode begins."""
    arrays: dict[str, NDArray[Any]]
    """Key -> uint8 [3, R, T, H, W, C] or float32 [3, R, T, D]."""
    pause: float = 0.0
    """Seconds from this film to the next one that nobody asks for; 0 if it does not say."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the numbers of a vector are called, as far as it says."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """How many classes the numbers of a key have that are categories."""

    @property
    def length(self) -> int:
        """Frames in each sequence."""
        return self.is_first.shape[1]

    def shots(self) -> list[Shot]:
        """Every sequence of every key, images first."""
        keys = sorted(self.arrays, key=lambda key: (self.arrays[key].ndim != 6, key))
        rows = range(self.is_first.shape[0])
        return [Shot(key, row, self.arrays[key].ndim == 6) for key in keys for row in rows]

    def frame(self, shot: Shot, time: int) -> list[Pixels]:
        """Three pictures [H, W, 3]: real, reconstructed, dreamed."""
        pixels = self.arrays[shot.key][:, shot.row, time]
        colour = pixels.shape[-1] >= 3
        rgb = pixels[..., :3] if colour else np.repeat(pixels[..., :1], 3, axis=-1)
        return list(rgb)

    def traces(self, shot: Shot) -> NDArray[np.float32]:
        """Three curves a number: [3, T, D]."""
        return self.arrays[shot.key][:, shot.row]

    def name(self, key: str, index: int) -> str:
        """What a number of a vector is called."""
        known = self.names.get(key, ())
        if index < len(known):
            return known[index]
        return f"{key}[{index}]" if self.arrays[key].shape[-1] > 1 else key


def load(path: Path) -> Film:
    """Read a film; raises ValueError or OSError for anything that is none."""
    with reading(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise ValueError(f"not a film: larger than {MAX_BYTES:,} bytes")
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                    raise ValueError("not a film: too much in it")
            file.seek(0)
            with np.load(file, allow_pickle=False) as content:
                return _checked({name: content[name] for name in content.files})
        except DAMAGED_ARRAYS as error:
            raise ValueError(f"not a film: {error}") from None


def _checked(content: dict[str, NDArray[Any]]) -> Film:
    meta = json.loads(str(content["meta"]))
    first = content["is_first"]
    if not isinstance(meta, dict) or first.ndim != 2 or not first.size:
        raise ValueError("not a film: no sequences")
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in content.items():
        kind, _, key = name.partition("/")
        if kind in ("image", "vector") and _fits(kind, array, first.shape):
            arrays[_key(key)] = array
    if not arrays:
        raise ValueError("not a film: nothing to see")
    whole = {k: int(number(meta.get(k)) or 0) for k in ("update", "env_steps", "context")}
    when, pause = (max(0.0, number(meta.get(name)) or 0.0) for name in ("time", "pause"))
    said = {"names": _names(meta.get("names")), "classes": _classes(meta.get("classes"))}
    return Film(**whole, time=when, is_first=first.astype(bool), arrays=arrays, pause=pause, **said)


def _key(key: object) -> str:
    return clean(key, 40)


def _names(said: object) -> dict[str, list[str]]:
    """Names by key; what is none is left out."""
    known = said if isinstance(said, dict) else {}
    return {
        _key(key): [clean(name, 40) for name in names]
        for key, names in known.items()
        if isinstance(names, list)
    }


def _classes(said: object) -> dict[str, int]:
    """Numbers of classes by key; what is none is left out."""
    known = said if isinstance(said, dict) else {}
    counts = {_key(key): int(number(count) or 0) for key, count in known.items()}
    return {key: count for key, count in counts.items() if count > 0}


def _fits(kind: str, array: NDArray[Any], lead: tuple[int, ...]) -> bool:
    """Tell whether an array is what its name says, for these rows and steps."""
    if array.size == 0 or array.shape[:3] != (3, *lead):
        return False
    if kind == "image":
        return array.ndim == 6 and array.dtype == np.uint8 and array.shape[-1] <= 4
    return array.ndim == 4 and array.dtype == np.float32


class FilmFile:
    """Follows the film of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.film: Film | None = None
        self.trouble = ""
        """Why there is none, if there is a file."""
        self._seen: tuple[int, int] | None = None

    def look(self) -> bool:
        """Read the film if there is a newer one; tells whether there was."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        key = status.st_ino, status.st_mtime_ns
        if key == self._seen:
            return False
        self._seen = key
        try:
            self.film, self.trouble = load(self.path), ""
        except (OSError, ValueError) as error:
            self.trouble = clean(error, 200)
        return True
