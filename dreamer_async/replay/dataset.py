"""What a folder of episodes says of itself: how long it is, and which spaces its arrays are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.config import ConfigError
from dreamer_async.envs.suites import session
from dreamer_async.replay.episodes import read_arrays, recordings, rows_of

ROWS = 16
"""Environments that a folder is dealt out to at most, where nothing else is said."""
WINDOWS = 4
"""Sequences that each of them has at least."""


class Dataset:
    """A folder of npz files, before anything is known of an environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = recordings(folder)
        self._lengths = [file.steps for file in self._files]
        self.steps = sum(self._lengths)
        """Steps of all files."""
        names = ("action", "is_first")
        self._small = [read_arrays(file.path, names) for file in self._files]

    def rows(self, wanted: int, batch_length: int) -> int:
        """How many environments of a replay the files are dealt out to."""
        enough = self.steps // (WINDOWS * (batch_length + 1))
        return max(1, min(wanted, len(self._files), enough))

    def longest(self, rows: int) -> int:
        """Steps of the longest row."""
        return max(sum(self._lengths[i] for i in row) for row in rows_of(self._lengths, rows))

    def actions(self, given: str | None) -> str:
        """Whether action t was chosen after observation t or before it.

        Ports of Dreamer store zeros with the first observation, as nothing led to it: where that
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

    def spaces(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        """Spaces that the arrays fit, as arguments of a session; ConfigError if there are none.

        `kinds` are those that --as gives; keys that it hides need no space.
        """
        from dreamer_async.envs.native import recorded, space_json

        first = self._files[0]
        names = [name for name in first.observations if kinds.get(name) != "hidden"]
        if not names:
            raise ConfigError(f"{first.path} has no observation beside {sorted(first.arrays)}")
        try:
            seen = {name: recorded.space_of(name, *first.arrays[name]) for name in names}
            done = self._action_space()
        except ValueError as error:
            raise ConfigError(f"{first.path}: {error}") from None
        return {
            session.OBSERVATION: space_json.encode(recorded.observation_space(seen)),
            session.ACTION: space_json.encode(done),
        }

    def _action_space(self) -> Any:
        from gymnasium import spaces

        from dreamer_async.envs.native import recorded

        every = np.concatenate([arrays["action"] for arrays in self._small])
        if every.ndim == 2 and every.shape[1] > 1 and recorded.is_onehot(every[every.any(1)]):
            return spaces.Discrete(every.shape[1])
        return recorded.action_space(every.shape[1:], every.dtype, every.max(0))


def _firsts(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Of each episode of a file, whether anything of its first action is not zero."""
    action = arrays["action"]
    first = np.zeros(len(action), bool)
    if "is_first" in arrays:
        first |= arrays["is_first"].reshape(-1).astype(bool)
    first[0] = True
    return np.asarray(action[first].reshape(int(first.sum()), -1).any(1))
