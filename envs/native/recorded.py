"""Recorded values of an environment's own spaces, as the agent sees and stores them.

`actions` writes what an agent decides for an environment; here that is undone. What nobody could
have done or seen is refused in words.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: T steps, A dimensions, C columns of several actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.native.leaves import ActionWriter
from dreamer_async.envs.observed.reader import ObsReader
from dreamer_async.envs.spaces import leaves, read_space
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.view import ALONE, PLAIN, View, key_of

Array = NDArray[Any]
Space = gymnasium.Space[Any]

SLACK = 1e-4
"""How far a recorded number may lie outside its bounds, as a share of their distance: rounding."""


@dataclass(frozen=True)
class Column:
    """An observation key, as an environment itself delivers it."""

    key: str
    """Its path, joined with slashes; `observation` where there is no dictionary."""
    space: Space
    reader: ObsReader

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        """Raise ValueError for recorded values that cannot be of this space."""
        if isinstance(self.space, spaces.Text):
            if shape or dtype.kind not in "OU":
                raise ValueError(f"{name} is {dtype} {list(shape)}, not a text for each step")
            return
        wanted = np.dtype(self.space.dtype or np.float32)
        if shape != self.space.shape:
            raise ValueError(
                f"{name} has the shape {list(shape)}, not {list(self.space.shape or ())}"
            )
        if dtype.kind not in "fiub":
            raise ValueError(f"{name} is {dtype}, not numbers")
        if wanted.kind != "f" and dtype.kind == "f":
            raise ValueError(f"{name} is {dtype}, not {wanted}")

    def read(self, value: Array, name: str) -> Array:
        """Convert [T, *] to what is stored, [T, *]; ValueError for values not of the space."""
        self.check(value.shape[1:], value.dtype, name)
        if isinstance(self.space, spaces.Text):
            if alien := [text for text in value.tolist() if not self.space.contains(text)]:
                raise ValueError(f"{name} has the text {alien[0]!r:.40}, outside its space")
            return self.reader.convert(value)
        if value.dtype.kind == "f" and not np.isfinite(value.astype(np.float32)).all():
            raise ValueError(f"{name} has numbers that are not finite")
        wanted = np.dtype(self.space.dtype or np.float32)
        if wanted.kind != "f":
            low, high = _whole_bounds(self.space)
            if ((value < low) | (value > high)).any():
                span = f"from {value.min()} to {value.max()}"
                raise ValueError(f"{name} goes {span}, outside its space")
        value = value.astype(wanted)
        picture = self.reader.picture
        if picture is not None and (fault := picture.fault(value)):
            raise ValueError(f"{name} {fault}")
        return self.reader.convert(value)


def columns(observation: Space, view: View, spec: EnvSpec) -> tuple[Column, ...]:
    """The observation keys of an environment; ValueError where only the environment can read them.

    `view` is that of the run, unless the spaces are already the agent's own.
    """
    readers = read_space(observation, view if spec.native else PLAIN)
    if {reader.name: reader.spec for reader in readers} != dict(spec.obs):
        raise ValueError(
            f"recorded observations of {spec.suite} {spec.task} cannot be read without it"
        )
    found = dict(leaves(observation))
    return tuple(Column(key_of(r.path) or ALONE, found[r.path], r) for r in readers)


def _whole_bounds(space: Space) -> tuple[Any, Any]:
    """Least and largest value of a space of whole numbers."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    assert isinstance(space, spaces.Box), space
    return space.low, space.high


def stored_actions(space: Space, value: Array) -> Array:
    """Turn recorded actions [T, *] of `space` into those that an agent would have decided.

    int32 [T], float32 [T, A] or float32 [T, C]; ValueError for what is no action of the space.
    """
    if isinstance(space, spaces.Discrete):
        return _classes(value, int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        low, high = _whole_bounds(space)
        if value.shape[1:] != space.shape or value.dtype.kind not in "iub":
            raise ValueError(
                f"actions are {_kind(value)}, not whole numbers of {list(space.shape)}"
            )
        _inside(value, low, high)
        return (value.astype(np.int64) - low).reshape(len(value), -1).astype(np.float32)
    if isinstance(space, spaces.Box):
        writer = write_actions(space)
        if isinstance(writer, ActionWriter):
            return _vector(value, space, writer)
    raise ValueError(f"recorded actions of {space} cannot be read; Box and Discrete can")


def _classes(value: Array, count: int, start: int) -> Array:
    if value.ndim == 2 and value.shape[1] == count and count > 1:
        if not is_onehot(value):
            raise ValueError(f"actions are {_kind(value)}, but not one-hot vectors")
        return value.argmax(1).astype(np.int32)
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if value.ndim != 1 or value.dtype.kind not in "iu":
        raise ValueError(
            f"actions are {_kind(value)}, not whole numbers [T] or one-hot [T, {count}]"
        )
    _inside(value, start, start + count - 1)
    return (value.astype(np.int64) - start).astype(np.int32)


def _vector(value: Array, space: spaces.Box, writer: ActionWriter) -> Array:
    if value.shape[1:] != space.shape or value.dtype.kind not in "fiu":
        raise ValueError(f"actions are {_kind(value)}, not numbers of {list(space.shape)}")
    decided = value.reshape(len(value), math.prod(space.shape))[:, writer.free].astype(np.float64)
    span = writer.high - writer.low
    _inside(decided, writer.low - SLACK * span, writer.high + SLACK * span)
    return np.clip((decided - writer.low) / span * 2 - 1, -1, 1).astype(np.float32)


def _inside(value: Array, low: Any, high: Any) -> None:
    if not ((value >= low) & (value <= high)).all():  # what is no number is in no order
        least, most = np.min(low), np.max(high)
        raise ValueError(f"actions go from {value.min()} to {value.max()}, not {least} to {most}")


def is_onehot(value: Array) -> bool:
    """Whether every row of [T, A] has a single one and else zeros."""
    return bool((((value == 0) | (value == 1)).all(1) & (value.sum(1) == 1)).all())


def _kind(value: Array) -> str:
    return f"{value.dtype} {['T', *value.shape[1:]]}".replace("'", "")


def space_of(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Space:
    """The space of a recorded observation of which nothing else is known."""
    if dtype.kind == "b":
        return spaces.MultiBinary(shape) if shape else spaces.Discrete(2)
    if dtype.kind == "f":
        return spaces.Box(-math.inf, math.inf, shape, np.float32)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return spaces.Box(info.min, info.max, shape, dtype.type)
    raise ValueError(f"{name} is {dtype}, not numbers")


def observation_space(parts: Mapping[str, Space]) -> Space:
    """One Box where the only key has no name of its own, else a Dict."""
    if len(parts) == 1 and (name := next(iter(parts))) in (ALONE, "obs"):
        return parts[name]
    return spaces.Dict(dict(parts))


def action_space(shape: tuple[int, ...], dtype: np.dtype[Any], most: Array) -> Space:
    """The space of recorded actions: classes up to the largest seen, or numbers in [-1, 1].

    `most` is the largest of each dimension, [] or [A]; whole numbers are classes.
    """
    if dtype.kind in "iu" and not shape:
        return spaces.Discrete(max(2, int(most) + 1))
    if dtype.kind in "iu":
        return spaces.MultiDiscrete(np.maximum(np.asarray(most, np.int64) + 1, 2))
    if dtype.kind == "f" and len(shape) == 1:
        return spaces.Box(-1, 1, shape, np.float32)
    raise ValueError(f"actions of the type {dtype} and the shape {list(shape)} cannot be read")
