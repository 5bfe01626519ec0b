"""The C++ calls of an envpool pool, without the Python around them.

envpool's own `send` and `recv` copy actions and build nested dictionaries of everything that an
environment knows, which takes longer than stepping a small one. The calls below them are not
documented; envpool is pinned to one minor version, and the tests compare both ways bit for bit.

Legend: N rows of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class RawRows(NamedTuple):
    """One batch as it comes from C++."""

    values: Sequence[NDArray[Any]]
    """[N, *] everything that the environments know, see RawPool."""
    reward: NDArray[Any]
    """[N]."""
    done: NDArray[np.bool_]
    """[N] the episode ended, for whatever reason."""
    truncated: NDArray[np.bool_]
    """[N] it ended by a time limit."""
    env_id: NDArray[np.int32]
    """[N]."""
    steps: NDArray[np.int32]
    """[N] steps of the episode so far."""


class RawPool:
    """One pool; it checks nothing."""

    steps_ahead = True
    """Environments step once they are asked, not only inside `recv`."""

    def __init__(self, pool: Any) -> None:
        self.pool: Any = pool
        """envpool's own object."""
        keys: list[str] = list(pool._state_keys)
        obs = {key[4:]: i for i, key in enumerate(keys) if key.partition(":")[0] == "obs"}
        named = hasattr(pool.observation_space, "spaces")
        self._paths: dict[tuple[str, ...], int] = {
            tuple(name.split(".")) if named else (): i for name, i in obs.items()
        }
        fields = ("reward", "done", "trunc", "info:env_id", "elapsed_step")
        self._fields = itemgetter(*(keys.index(name) for name in fields))
        *ids, _ = pool._action_keys
        assert set(ids) == {"env_id", "players.env_id"}, pool._action_keys

    def async_reset(self) -> None:
        """Ask every environment for a reset."""
        self.pool.async_reset()

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        """Ask for rows. C++ keeps both arrays, so that nobody may write to them afterwards."""
        self.pool._send([env_id, env_id, action])

    def recv(self) -> RawRows:
        """Wait for a batch."""
        values = self.pool._recv()
        return RawRows(values, *self._fields(values))

    def free(self) -> None:
        """Destroy the environments; nothing may be in flight."""
        self.pool = None

    def index(self, path: tuple[str, ...]) -> int:
        """Which of RawRows.values is the observation at `path`, () if there is only one."""
        return self._paths[path]

    def observation(self, values: Sequence[NDArray[Any]]) -> Any:
        """Pick the observation: an array, or nested dictionaries of arrays."""
        obs: dict[str, Any] = {}
        for path, index in self._paths.items():
            if not path:
                return values[index]
            inner = obs
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = values[index]
        return obs
