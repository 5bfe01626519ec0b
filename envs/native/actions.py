"""From gymnasium's action spaces to our specs, and actions back into the environment's own space.

Whatever an agent decides arrives in the space of the environment: `space.contains` holds for every
action that is written. A Discrete is one class, a Box of real numbers one vector in [-1, 1] that is
scaled to its bounds; everything else becomes several actions, one for each thing to decide.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch, C columns of several actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.native.bounds import bounds_of, inward, remark_on
from dreamer_async.envs.native.leaves import (
    FEW_PARTS,
    ActionWriter,
    ClassesWriter,
    FixedWriter,
    Leaf,
    TextWriter,
)
from dreamer_async.envs.observed.reader import Path, UnsupportedSpace, path_name
from dreamer_async.envs.spaces import check_classes, letters_of, refusal
from dreamer_async.envs.spec import ActionSpec

Array = NDArray[Any]

FEW_NUMBERS = 32
"""Up to so many whole numbers per dimension are classes; of more, near ones are alike."""
MOST_PARTS = 256
"""Each part of several actions is a head of the policy, and heads are computed one by one."""


@dataclass(frozen=True)
class Placed:
    """A leaf and its columns of several actions."""

    name: str
    leaf: Leaf
    place: slice

    def describe(self) -> str:
        words = f"{decided(list(self.leaf.parts.values()))} -> {self.leaf.describe()}"
        return f"{self.name}: {words}" if self.name else words


Tree = Placed | dict[Any, Any] | tuple[Any, ...]
"""A leaf, or a dictionary or tuple of trees, nested as the environment's space is."""


@dataclass(frozen=True, eq=False)
class SeveralWriter:
    """How to hand several actions to an environment, nested as its space is."""

    spec: ActionSpec
    """What comes in."""
    tree: Tree
    """What writes each leaf."""

    def one(self, action: Array) -> Any:
        """Convert one valid action: float32 [C] to what the environment takes."""

        def row(part: Placed) -> Any:
            return part.leaf.row(part.leaf.take(action[None, part.place]), 0)

        return _each(self.tree, row)

    def write(self, action: Array) -> Any:
        """Convert a valid batch [N, C]: arrays get a leading axis, texts become lists."""
        return _each(self.tree, lambda part: part.leaf.take(action[:, part.place]))

    def describe(self) -> str:
        """What is decided and what the environment gets for it, leaf by leaf."""
        lines: list[str] = []
        _each(self.tree, lambda part: lines.append(part.describe()))
        return "; ".join(lines)


def _each(tree: Tree, function: Callable[[Placed], Any]) -> Any:
    """The same nesting with something else in place of its leaves."""
    if isinstance(tree, dict):
        return {key: _each(part, function) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_each(part, function) for part in tree)
    return function(tree)


def describe(writer: ActionWriter | SeveralWriter) -> str:
    """What an agent decides and what the environment gets for it, in words."""
    if isinstance(writer, SeveralWriter):
        return writer.describe()
    return f"{decided([writer.spec])} -> {writer.describe()}"


def decided(parts: list[ActionSpec]) -> str:
    """What is decided, in words."""
    sizes = [part.size for part in parts]
    if not parts:
        return "nothing"
    if parts[0].kind == "continuous":
        return f"{sizes[0]} number{'s' * (sizes[0] > 1)} in [-1, 1]"
    if len(parts) == 1:
        return f"one of {sizes[0]}"
    least, most = min(sizes), max(sizes)
    if least < most and len(parts) <= FEW_PARTS:
        return ", ".join(f"one of {size}" for size in sizes)
    return f"{len(parts)} times one of {least}" + f" to {most}" * (least < most)


def write_actions(space: gymnasium.Space[Any]) -> ActionWriter | SeveralWriter:
    """Plan how to write actions; UnsupportedSpace if that is not possible."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        leaf = _leaf(space, ())
        if isinstance(leaf, ActionWriter):
            _check_choice(space, [leaf.spec])
            return leaf
    parts: list[tuple[str, ActionSpec]] = []
    tree = _plant(space, (), parts)
    names = [name for name, _ in parts]
    _check_choice(space, [spec for _, spec in parts])
    if len(set(names)) < len(names):
        raise UnsupportedSpace(f"action keys {names} are ambiguous")
    if len(parts) > MOST_PARTS:
        raise UnsupportedSpace(
            f"action space {space!r:.200} asks for {len(parts):,} decisions at once, but "
            f"{MOST_PARTS} are the most: each is a head of the policy (wrap the environment)"
        )
    return SeveralWriter(ActionSpec.several(dict(parts)), tree)


def _check_choice(space: gymnasium.Space[Any], parts: Iterable[ActionSpec]) -> None:
    """Raise UnsupportedSpace where all that is decided has one possible value."""
    if all(part.kind == "discrete" and part.size == 1 for part in parts):
        raise UnsupportedSpace(f"action space {space} leaves nothing to decide")


def _plant(space: gymnasium.Space[Any], path: Path, parts: list[tuple[str, ActionSpec]]) -> Tree:
    """Make the tree of a space, whose leaves add what they decide to `parts`."""
    if isinstance(space, spaces.Dict):
        return {key: _plant(part, (*path, key), parts) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_plant(part, (*path, i), parts) for i, part in enumerate(space.spaces))
    leaf = _leaf(space, path)
    start = sum(spec.columns for _, spec in parts)
    for name, spec in leaf.parts.items():
        parts.append((path_name((*path, name) if name else path), spec))
    stop = sum(spec.columns for _, spec in parts)
    return Placed(path_name(path), leaf, slice(start, stop))


def _leaf(space: gymnasium.Space[Any], path: Path) -> Leaf:
    """How to write what a space without others in it takes."""
    if isinstance(space, spaces.Discrete):
        return _discrete(space)
    if isinstance(space, spaces.MultiDiscrete):
        first = np.asarray(space.start, space.dtype)
        return _classes(space, np.asarray(space.nvec).reshape(-1).tolist(), first)
    if isinstance(space, spaces.MultiBinary):
        return ClassesWriter([2] * math.prod(space.shape), np.zeros(space.shape, space.dtype))
    if isinstance(space, spaces.Text):
        return TextWriter(letters_of("action", space))
    if isinstance(space, spaces.Box):
        return _box(space)
    raise UnsupportedSpace(refusal("action", space, path))


def write_space(space: gymnasium.Space[Any]) -> ActionWriter:
    """Plan how to write batches of one class or one vector; UnsupportedSpace for other spaces."""
    leaf = _leaf(space, ()) if isinstance(space, spaces.Discrete | spaces.Box) else None
    if leaf is not None:
        _check_choice(space, leaf.parts.values())
    if not isinstance(leaf, ActionWriter):
        raise UnsupportedSpace(
            f"action space {space} is not supported here; Discrete and Box of real numbers are, "
            "and in Python environments many more (wrap the environment to convert it)"
        )
    return leaf


def _discrete(space: spaces.Discrete) -> ActionWriter:
    check_classes(space, int(space.n), int(space.start) + int(space.n) - 1)
    spec = ActionSpec("discrete", int(space.n))
    start = np.array(int(space.start), np.int64)
    return ActionWriter(spec, (), np.dtype(space.dtype), start, start)


def _classes(
    space: spaces.MultiDiscrete, sizes: list[int], first: NDArray[np.integer[Any]]
) -> ClassesWriter:
    for size, start in zip(sizes, first.reshape(-1).tolist(), strict=True):
        check_classes(space, size, start + size - 1)
    return ClassesWriter(sizes, first)


def _box(space: spaces.Box) -> Leaf:
    """Classes where there are few whole numbers, else a vector of what is decided."""
    bounds = bounds_of(space)
    if all(low == high for low, high in bounds):
        return FixedWriter(np.array(space.low))
    whole = space.dtype.kind != "f"
    if whole and all(high - low < FEW_NUMBERS for low, high in bounds):
        first = np.array([low for low, _ in bounds], space.dtype).reshape(space.shape)
        return ClassesWriter(
            [high - low + 1 for low, high in bounds], first, remark_on(space, bounds)
        )
    low, high = np.array([inward(*ends) if whole else ends for ends in bounds], np.float64).T
    free = low < high
    spec = ActionSpec("continuous", int(free.sum()))
    plain = not whole and len(space.shape) == 1 and bool(((low == -1) & (high == 1)).all())
    shape, dtype, own = tuple(space.shape), np.dtype(space.dtype), remark_on(space, bounds)
    return ActionWriter(spec, shape, dtype, low[free], high[free], plain, free, low, own)
