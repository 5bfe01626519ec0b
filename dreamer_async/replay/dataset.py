"""What recorded episodes say of themselves: how long they are, and of which spaces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.config import ConfigError
from dreamer_async.envs.suites import session
from dreamer_async.replay import minari_dataset
from dreamer_async.replay.episodes import rows_of
from dreamer_async.replay.npz import npz_files
from dreamer_async.replay.recording import Recording

ROWS = 16
"""Environments that a folder is dealt out to at most, where nothing else is said."""
WINDOWS = 4
"""Sequences that each of them has at least."""


class Dataset(ABC):
    """Recorded steps, before anything is known of an environment."""

    def __init__(self, files: Sequence[Recording]) -> None:
        self._lengths = [file.steps for file in files]
        self.steps = sum(self._lengths)
        """Steps of all files."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What a run that learns from it is called."""

    def rows(self, wanted: int, batch_length: int) -> int:
        """How many environments of a replay the files are dealt out to."""
        enough = self.steps // (WINDOWS * (batch_length + 1))
        return max(1, min(wanted, len(self._lengths), enough))

    def longest(self, rows: int) -> int:
        """Steps of the longest row."""
        return max(sum(self._lengths[i] for i in row) for row in rows_of(self._lengths, rows))

    @abstractmethod
    def actions(self, given: str | None) -> str:
        """Whether action t was chosen after observation t or before it, or what --actions says."""

    @abstractmethod
    def spaces(self, kinds: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Spaces that the steps are of, as arguments of a session, and the kinds of its keys.

        `kinds` are those that --as gives; ConfigError where there are no such spaces.
        """


def dataset_of(path: Path) -> Dataset:
    """What is recorded in a folder; ConfigError if that is nothing."""
    return Minari(path) if minari_dataset.is_dataset(path) else Folder(path)


class Minari(Dataset):
    """A dataset that says itself which spaces it is of."""

    def __init__(self, path: Path) -> None:
        self._opened = minari_dataset.Opened(path)
        super().__init__([*self._opened.episodes()])

    @property
    def label(self) -> str:
        return self._opened.label

    def actions(self, given: str | None) -> str:
        """Nobody has to ask: that is part of the format."""
        if given not in (None, "after"):
            raise ConfigError(f"--actions {given}: those of Minari come after their observations")
        return "after"

    def spaces(self, kinds: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        return _arguments(self._opened.observation_space, self._opened.action_space), dict(kinds)


class Folder(Dataset):
    """A folder of npz files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = npz_files(folder)
        super().__init__(self._files)
        names = ("action", "is_first")
        self._small = [file.read(names) for file in self._files]

    @property
    def label(self) -> str:
        return self.folder.name

    def actions(self, given: str | None) -> str:
        """Ports of Dreamer store zeros with the first observation, as nothing led to it: where that
        is so of every episode, nobody can tell, unless zeros are no action.
        """
        if given is not None:
            if given not in ("after", "before"):
                raise ConfigError(f"--actions must be after or before, got {given!r}")
            return given
        firsts = np.concatenate([_firsts(arrays) for arrays in self._small])
        every = self._small[0]["action"]
        if firsts.any() or (every.ndim == 1 and every.dtype.kind in "iu"):
            return "after"
        raise ConfigError(
            f"the first action of every episode in {self.folder} is zero, as if it stood for none: "
            "say --actions before if action t led to observation t, --actions after if it was "
            "chosen there"
        )

    def spaces(self, kinds: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Spaces that the arrays fit; keys that --as hides need none."""
        from dreamer_async.envs.native import recorded

        first = self._files[0]
        names = [name for name in first.observations if kinds.get(name) != "hidden"]
        if not names:
            raise ConfigError(f"{first.name} has no observation beside {sorted(first.arrays)}")
        try:
            seen = {name: recorded.space_of(name, *first.arrays[name]) for name in names}
            done = self._action_space()
        except ValueError as error:
            raise ConfigError(f"{first.name}: {error}") from None
        shown = {key: kind for key, kind in kinds.items() if kind != "hidden"}
        return _arguments(recorded.observation_space(seen), done), shown

    def _action_space(self) -> Any:
        from gymnasium import spaces

        from dreamer_async.envs.native import recorded

        every = np.concatenate([arrays["action"] for arrays in self._small])
        if every.ndim == 2 and every.shape[1] > 1 and recorded.is_onehot(every[every.any(1)]):
            return spaces.Discrete(every.shape[1])
        return recorded.action_space(every.shape[1:], every.dtype, every.max(0))


def _arguments(seen: Any, done: Any) -> dict[str, Any]:
    """Spaces as arguments of a session; ConfigError for what JSON cannot hold."""
    from dreamer_async.envs.native import space_json

    try:
        return {
            session.OBSERVATION: space_json.encode(seen),
            session.ACTION: space_json.encode(done),
        }
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _firsts(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Of each episode of a file, whether anything of its first action is not zero."""
    action = arrays["action"]
    first = np.zeros(len(action), bool)
    if "is_first" in arrays:
        first |= arrays["is_first"].reshape(-1).astype(bool)
    first[0] = True
    return np.asarray(action[first].reshape(int(first.sum()), -1).any(1))
