"""Folders of recorded episodes: arrays [T, ...], one for each key, of npz files or by Minari.

Files are what ports of Dreamer save (an episode each) and what the official replay saves (chunks of
a stream). Besides observations there are `action`, `reward`, `is_first`, `is_last` and
`is_terminal`, or `discount`, which is 0 where the episode ended because of the task. Files are
taken in the order of their names, and episodes of Minari in theirs.

Legend: T steps of a recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.config import Config, ConfigError
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.replay import minari_dataset
from dreamer_async.replay.npz import npz_files
from dreamer_async.replay.recording import OWN, Array, Recording

ALONE = ("observation", "obs", "image", "vector", "state")
"""Names of the only observation key."""


def recordings(path: Path) -> list[Recording]:
    """What a folder of npz files or a Minari dataset holds; ConfigError for what is neither."""
    if minari_dataset.is_dataset(path):
        return [*minari_dataset.Opened(path).episodes()]
    return [*npz_files(path)]


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
            raise ConfigError(f"{folder} has {len(self._files)} recordings for {rows} environments")
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
            yield self.read(self._files[index])

    def read(self, file: Recording) -> dict[str, Array]:
        """One file as the replay stores it; ConfigError that names it and what is wrong."""
        arrays = file.read([*OWN, *self._names.values()])
        try:
            obs = {
                column.reader.name: column.read(arrays[name], name)
                for column, name in zip(self._columns, self._names.values(), strict=True)
            }
            return obs | self._done(arrays)
        except ValueError as error:
            raise ConfigError(f"{file.name}: {error}") from None

    def check(self) -> None:
        """Look at everything but the contents of observations; ConfigError as in `read`."""
        first = self._files[0]  # as all others are
        try:
            for column, name in zip(self._columns, self._names.values(), strict=True):
                column.check(*first.arrays[name], name)
        except ValueError as error:
            raise ConfigError(f"{first.name}: {error}") from None
        for file in self._files:
            try:
                self._done(file.read(OWN))
            except ValueError as error:
                raise ConfigError(f"{file.name}: {error}") from None

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
        if key in OWN:
            raise ConfigError(
                f"{file.name}: an observation cannot be called {key!r}, which has another meaning "
                f"in a recording; --as {key}=hidden leaves it out"
            )
        if key not in file.arrays:
            raise ConfigError(
                f"{file.name} has no {key!r}, which the agent sees; it has {file.observations}"
            )
    return {key: key for key in keys}


def _flags(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Reward and flags of a file: what it does not have follows from the others, or from its being
    an episode.

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
    first[1:] |= last[:-1]
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
