"""Folders of recorded episodes: npz files of arrays [T, ...], one for each key.

They are what ports of Dreamer save (an episode each) and what the official replay saves (chunks of
a stream). Besides observations there are `action`, `reward`, `is_first`, `is_last` and
`is_terminal`, or `discount`, which is 0 where the episode ended because of the task. Files are
taken in the order of their names.

Legend: T steps of a file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.config import Config, ConfigError
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.store.regular_file import reading

Array = NDArray[Any]

OWN = ("action", "reward", "is_first", "is_last", "is_terminal", "discount")
"""Keys that are no observations."""
PASSED_OVER = ("stepid", "consec", "reset", "logprob")
"""Keys that others store beside them; so are those that begin with these:"""
PASSED_OVER_BEGINNINGS = ("log_", "log/", "dyn/", "enc/", "dec/", "policy_")
ALONE = ("observation", "obs", "image", "vector", "state")
"""Names of the only observation key."""


@dataclass(frozen=True)
class Recording:
    """What one file says of its arrays without their contents."""

    path: Path
    steps: int
    arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """{key: (shape without time, type)}."""

    @property
    def observations(self) -> list[str]:
        """Keys that can be observations."""
        return [name for name in self.arrays if name not in OWN and not is_passed_over(name)]


def is_passed_over(name: str) -> bool:
    """Whether a key is known to be neither an observation nor needed."""
    return name in PASSED_OVER or name.startswith(PASSED_OVER_BEGINNINGS)


def recordings(folder: Path) -> list[Recording]:
    """Every file of a folder, in the order of their names; ConfigError for what is none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise ConfigError(f"{folder} has no .npz files (and is no run)")
    found = [_look(path) for path in paths]
    for each in found:
        _compare(found[0], each)
    return found


def rows_of(steps: Sequence[int], rows: int) -> list[list[int]]:
    """Deal files out to rows, each to the shortest: their indices by row."""
    dealt: list[list[int]] = [[] for _ in range(rows)]
    lengths = [0] * rows
    for index, many in enumerate(steps):
        row = lengths.index(min(lengths))
        dealt[row].append(index)
        lengths[row] += many
    return dealt


class Episodes:
    """The steps of a folder, dealt out to the environments of a replay."""

    def __init__(self, folder: Path, config: Config, spec: EnvSpec) -> None:
        from dreamer_async.envs.native import recorded

        self._files = recordings(folder)
        rows = config.env.num_envs
        if len(self._files) < rows:
            raise ConfigError(f"{folder} has {len(self._files)} files for {rows} environments")
        lengths = [file.steps for file in self._files]
        self._rows = rows_of(lengths, rows)
        self.steps = [sum(lengths[index] for index in row) for row in self._rows]
        self._before = config.replay.source_actions == "before"
        try:
            observation, self._action = envs.native_spaces(spec)
            columns = recorded.columns(observation, envs.View.of(config.env), spec)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._names = _matched([column.key for column in columns], self._files[0])
        self._columns = columns

    def close(self) -> None:
        """Nothing stays open."""

    def pieces(self, row: int) -> Iterator[Mapping[str, Array]]:
        """The files of one row, as the replay stores them."""
        for index in self._rows[row]:
            yield self.read(self._files[index].path)

    def read(self, path: Path) -> dict[str, Array]:
        """One file as the replay stores it; ConfigError that names it and what is wrong."""
        wanted = [*OWN, *self._names.values()]
        arrays = read_arrays(path, wanted)
        try:
            obs = {
                column.reader.name: column.read(arrays[name], name)
                for column, name in zip(self._columns, self._names.values(), strict=True)
            }
            return obs | self._done(arrays)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None

    def check(self) -> None:
        """Look at everything but the contents of observations; ConfigError as in `read`."""
        first = self._files[0]  # as all others are
        try:
            for column, name in zip(self._columns, self._names.values(), strict=True):
                column.check(*first.arrays[name], name)
        except ValueError as error:
            raise ConfigError(f"{first.path}: {error}") from None
        for file in self._files:
            try:
                self._done(read_arrays(file.path, OWN))
            except ValueError as error:
                raise ConfigError(f"{file.path}: {error}") from None

    def _done(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What is stored of a file besides observations."""
        from dreamer_async.envs.native import recorded

        flags = _flags(arrays)
        action = self._aligned(arrays["action"], flags)
        return {"action": recorded.stored_actions(self._action, action)} | flags

    def _aligned(self, action: Array, flags: Mapping[str, Array]) -> Array:
        """Put each action to the step at which it was chosen.

        What stands at the last steps of episodes led to nothing and may be no action: zeros, say.
        """
        aligned = np.concatenate([action[1:], action[-1:]]) if self._before else action.copy()
        idle = flags["is_last"] | np.append(flags["is_first"][1:], self._before)
        if not idle.all():
            aligned[idle] = aligned[~idle][0]
        return aligned


def _matched(keys: Sequence[str], file: Recording) -> dict[str, str]:
    """{key of the environment: its name in the files}."""
    if len(keys) == 1 and keys[0] not in file.arrays:
        others = [name for name in ALONE if name in file.observations]
        if len(others) == 1:
            return {keys[0]: others[0]}
    for key in keys:
        if key not in file.arrays:
            raise ConfigError(
                f"{file.path} has no {key!r}, which the agent sees; it has {file.observations}"
            )
    return {key: key for key in keys}


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Those arrays of a file that it has; ConfigError if it cannot be read."""
    try:
        with reading(path) as file, np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in names if name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _look(path: Path) -> Recording:
    """Read the headers of a file's arrays and check what all files need."""
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with reading(path) as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = _header(member)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
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
    return Recording(
        path, lengths["reward"], {name: (shape[1:], kind) for name, (shape, kind) in arrays.items()}
    )


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it has an array of Python objects")
    return shape, dtype


def _compare(first: Recording, other: Recording) -> None:
    """Refuse files that are not of one kind."""
    for name in first.arrays.keys() | other.arrays.keys():
        if is_passed_over(name):
            continue
        one, two = first.arrays.get(name), other.arrays.get(name)
        if one != two:
            raise ConfigError(
                f"{other.path} has {_kind(two)} for {name!r}, but {first.path.name} {_kind(one)}"
            )


def _kind(array: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
    return "nothing" if array is None else f"{array[1]} {list(array[0])}"


def _flags(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Reward and flags of a file: what it does not have follows from its being an episode.

    A file that begins inside an episode is cut there: its first step begins one.
    """
    steps = len(arrays["reward"])
    first = _flag(arrays, "is_first") if "is_first" in arrays else np.zeros(steps, bool)
    first[0] = True
    if "is_terminal" in arrays:
        ended = _flag(arrays, "is_terminal")
    else:
        ended = _column(arrays, "discount") == 0
    last = np.append(first[1:], "is_first" not in arrays) | ended
    if "is_last" in arrays:
        last = _flag(arrays, "is_last")
    if (ended & ~last).any():
        step = int(np.flatnonzero(ended & ~last)[0])
        raise ValueError(f"step {step} is terminal, but not the last of its episode")
    reward = _column(arrays, "reward").astype(np.float32)
    if not np.isfinite(reward).all():
        raise ValueError("reward has numbers that are not finite")
    return {"reward": reward, "is_first": first, "is_last": last, "is_terminal": ended}


def _flag(arrays: Mapping[str, Array], name: str) -> NDArray[np.bool_]:
    value = _column(arrays, name)
    if not ((value == 0) | (value == 1)).all():
        raise ValueError(f"{name} is neither 0 nor 1 everywhere")
    return value.astype(np.bool_)


def _column(arrays: Mapping[str, Array], name: str) -> Array:
    """A number for each step: [T], also where it was stored as [T, 1]."""
    value = arrays[name]
    if value.shape[1:] not in ((), (1,)) or value.dtype.kind not in "fiub":
        raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, not a number for each step")
    return value.reshape(len(value))
