"""Minari datasets: episodes of T + 1 observations and T actions, and the spaces that they are of.

Minari itself reads them (extra `minari`), and only when a dataset is opened. Nothing is downloaded,
and no environment that a dataset names is made.

Legend: T actions of an episode.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_async.config import ConfigError
from dreamer_async.envs.names import describe, nearest, squash
from dreamer_async.replay.recording import OWN, Array, Recording

PREFIX = "minari:"
"""What stands before the name of a dataset on the command line."""
ROOT = "MINARI_DATASETS_PATH"
"""Minari's own variable for where datasets are, ~/.minari/datasets without it."""
_METADATA = Path("data/metadata.json")


def is_dataset(path: Path) -> bool:
    """Whether a folder is a Minari dataset; which needs no Minari to tell."""
    return (path / _METADATA).is_file()


def located(name: str) -> Path:
    """The folder of a dataset that is on this machine; ConfigError names close ones."""
    root = Path(os.environ.get(ROOT) or "~/.minari/datasets").expanduser().absolute()
    if ".." not in Path(name).parts and is_dataset(root / name):
        return root / name
    found = (path.parents[1] for path in root.rglob(str(_METADATA)))
    known = sorted(str(path.relative_to(root)) for path in found)
    if close := nearest(name, {squash(each): each for each in known}):
        raise ConfigError(describe("Minari dataset", name, close, known))
    raise ConfigError(
        f"there is no Minari dataset {name!r} in {root}; `minari download {name}` fetches one"
    )


class Opened:
    """A dataset, opened by Minari."""

    def __init__(self, path: Path) -> None:
        """ConfigError without Minari, and for what it cannot read."""
        self._path = path
        self.label = str(_described(path).get("dataset_id") or path.name)
        """Its name among Minari datasets."""
        try:
            kind = importlib.import_module("minari").MinariDataset
        except (AttributeError, ImportError):  # or a folder of that name lies here
            raise ConfigError(
                f"{path} is a Minari dataset, which needs Minari: "
                "pip install 'dreamer-async[minari]'"
            ) from None
        try:
            self._dataset = kind(path / "data")
        except (AssertionError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        self.observation_space: Any = self._dataset.observation_space
        self.action_space: Any = self._dataset.action_space

    def episodes(self) -> Iterator[MinariEpisode]:
        """Every episode in which anything was done; ConfigError if there is none."""
        headers = _headers(self.observation_space, self.action_space)
        numbers = self._dataset.episode_indices.tolist()
        found = 0
        for number, said in zip(
            numbers, self._dataset.storage.get_episode_metadata(numbers), strict=True
        ):
            if steps := int(said["total_steps"]):
                name = f"{self._path}, episode {number}"
                yield MinariEpisode(name, steps + 1, headers, self._dataset, number)
                found += 1
        if not found:
            raise ConfigError(f"{self._path} has no episode with a step in it")


@dataclass(frozen=True)
class MinariEpisode(Recording):
    """One episode of a dataset, with a step more than it has actions: the first observation's."""

    dataset: Any
    """minari.MinariDataset."""
    number: int

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        """Those arrays that it has; ConfigError if it cannot be read."""
        try:
            [episode] = self.dataset.iterate_episodes([self.number])
            arrays = as_arrays(episode, self.dataset.observation_space)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            raise ConfigError(f"{self.name} cannot be read: {error}") from None
        return {name: arrays[name] for name in names if name in arrays}


def as_arrays(episode: Any, observation_space: Any) -> dict[str, Array]:
    """The arrays of an episode, [T + 1, *], in the form of npz files; ValueError if it has none.

    `episode` is as Minari has it: observations nested as their space is, of T + 1 rows, actions,
    rewards, terminations and truncations of T. An action stands with the observation after which
    it was chosen, and the last one again where nothing was done any more.
    """
    many = len(episode.rewards)
    action = np.asarray(episode.actions)
    for what, length in (("actions", len(action)), ("terminations", len(episode.terminations))):
        if length != many:
            raise ValueError(f"it has {many} rewards, but {length} {what}")
    ended = np.append(False, np.asarray(episode.terminations, bool))
    if ended[:-1].any():
        raise ValueError(f"it goes on after step {int(np.argmax(ended))}, which terminated it")
    own = {
        "action": np.concatenate([action, action[-1:]]),
        "reward": np.append(0.0, np.asarray(episode.rewards)),
        "is_first": np.arange(many + 1) == 0,
        "is_last": np.arange(many + 1) == many,
        "is_terminal": ended,
    }
    return dict(_observations(episode.observations, observation_space, many + 1)) | own


def _observations(nested: Any, space: Any, rows: int) -> Iterator[tuple[str, Array]]:
    """Every key of an episode's observations, [rows, *]."""
    from dreamer_async.envs.spaces import leaves
    from dreamer_async.envs.view import key_of

    for path, _ in leaves(space):
        value = nested
        for part in path:
            value = value[part]
        array = np.asarray(value)
        if len(array) != rows:
            raise ValueError(f"it has {len(array)} observations {key_of(path)}, not {rows}")
        yield key_of(path), array


def _headers(seen: Any, done: Any) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shapes and types of the arrays of every episode."""
    from dreamer_async.envs.spaces import leaves
    from dreamer_async.envs.view import key_of

    flags = {"reward": np.float64} | dict.fromkeys(("is_first", "is_last", "is_terminal"), np.bool_)
    own = {name: ((), np.dtype(kind)) for name, kind in flags.items()}
    obs = {key_of(path): _header(leaf) for path, leaf in leaves(seen)}
    return (
        {name: header for name, header in obs.items() if name not in OWN}
        | own
        | {"action": _header(done)}
    )


def _header(space: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return tuple(space.shape or ()), np.dtype(space.dtype or object)


def _described(path: Path) -> Mapping[str, Any]:
    """What a dataset says of itself; ConfigError if that is not enough to read it.

    Without spaces Minari would make the environment that the file names, and so run its code.
    """
    try:
        said = json.loads((path / _METADATA).read_bytes())
        whole = {"observation_space", "action_space"} <= said.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path / _METADATA} cannot be read: {error}") from None
    if not whole:
        raise ConfigError(f"{path} does not say which spaces it is of, as Minari 0.5 does")
    return said
