"""Observations and actions between an environment's own units and the agent's, without it.

What a user has in hand is what `env.reset` and `env.step` give, and what `env.step` takes. This
module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
from numpy.typing import NDArray

from dreamer_async.envs import values
from dreamer_async.envs.native import space_json
from dreamer_async.envs.native.actions import ActionWriter, SeveralWriter, write_actions
from dreamer_async.envs.observed.reader import ObsReader, Path, UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import EnvSpec, ObsSpec
from dreamer_async.envs.view import View, key_of

Space = gymnasium.Space[Any]
Array = NDArray[Any]

LONGEST = 300
"""Characters of a space that a message shows."""


@dataclass(frozen=True)
class Translator:
    """Reads whole observations, and writes actions; `of` makes one.

    Where a suite reads its environments in a way of its own (MiniGrid's tiles), or has nothing of
    gymnasium (the toys), the observation space is a Dict of the keys of the spec.
    """

    observation_space: Space
    """What is read."""
    action_space: Space
    """What is written."""
    readers: tuple[ObsReader, ...]
    """How each key of the agent is read."""
    writer: ActionWriter | SeveralWriter
    """How actions are written."""
    specs: Mapping[str, ObsSpec]
    """Shapes and types that come out."""

    @classmethod
    def of(cls, spec: EnvSpec, view: View) -> Translator:
        """Between the environments of a task, seen in this way, and its agent."""
        observation, readers = _observation(spec, view)
        action, writer = _action(spec)
        return cls(observation, action, readers, writer, spec.obs)

    def read(self, obs: Any) -> dict[str, Array]:
        """Read one observation: {key: [1, *shape]}.

        Raises ValueError that names the key, what was given and what its space says.
        """
        try:
            return {r.name: self._shaped(r, self._one(r, obs)[None]) for r in self.readers}
        except ValueError as error:
            count = self._batch_size(obs)
            if not count:
                raise
            text = f"these are {count} observations: is_first must be given, a bool for each"
            raise ValueError(text) from error

    def read_batch(self, obs: Any) -> dict[str, Array]:
        """Read N observations: {key: [N, *shape]}.

        They are nested as one is, with a leading axis in every leaf (of texts: a sequence of N).
        Raises ValueError as `read`, and where leaves differ in N.
        """
        try:
            rows = values.read_batch(self.readers, obs)
        except values.BrokenRule as error:
            wanted = _in_words(self.observation_space)
            raise ValueError(f"{error}; each row must be of {wanted}") from None
        return {r.name: self._shaped(r, rows[r.name]) for r in self.readers}

    def write(self, action: Array) -> Any:
        """What an environment takes, from one valid action without a batch axis."""
        return self.writer.one(action)

    def write_batch(self, action: Array) -> Any:
        """The same of a valid batch [N, *]: arrays get a leading axis, texts become lists."""
        return self.writer.write(action)

    def _one(self, reader: ObsReader, obs: Any) -> Array:
        try:
            return values.observation(reader, obs)
        except values.BrokenRule as error:
            wanted = _in_words(self.observation_space, reader.path)
            raise ValueError(f"{error}; {key_of(reader.path)} must be of {wanted}") from None

    def _batch_size(self, obs: Any) -> int:
        """How many observations these are, if they are several; else 0."""
        try:
            return len(next(iter(self.read_batch(obs).values())))
        except ValueError:
            return 0

    def _shaped(self, reader: ObsReader, rows: Array) -> Array:
        return rows.reshape(len(rows), *self.specs[reader.name].shape)


def _in_words(space: Any, path: Path = ()) -> str:
    """A space inside another one, in a line."""
    for key in path:
        space = space[key]
    return " ".join(f"{space}".split())[:LONGEST]


def _observation(spec: EnvSpec, view: View) -> tuple[Space, tuple[ObsReader, ...]]:
    """The environment's own observation space and its readers, or one of the keys of the spec."""
    space = space_json.spaces_of(spec)[0]
    try:
        readers = read_space(space, view)
    except UnsupportedSpace:
        readers = ()
    if {reader.name: reader.spec for reader in readers} == dict(spec.obs):
        return space, readers
    space = space_json.spaces_of(replace(spec, native={}))[0]
    images = {name: "image:hwc" for name, obs in spec.obs.items() if obs.is_image}
    return space, read_space(space, View(kinds=images))


def _action(spec: EnvSpec) -> tuple[Space, ActionWriter | SeveralWriter]:
    """The environment's own action space and its writer, or one of the agent's own actions."""
    space = space_json.spaces_of(spec)[1]
    writer = write_actions(space)
    if writer.spec != spec.action:
        space = space_json.spaces_of(replace(spec, native={}))[1]
        writer = write_actions(space)
    assert writer.spec == spec.action, (writer.spec, spec.action)
    return space, writer
