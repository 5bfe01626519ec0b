"""From gymnasium's action spaces to our specs, and actions back into the environment's own space.

Whatever an agent decides arrives in the space of the environment: `space.contains` holds for every
action that is written. A Discrete is one class, a Box of real numbers one vector in [-1, 1] that is
scaled to its bounds; everything else becomes several actions, one for each thing to decide.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch, A dimensions of one vector, C columns of several actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.spaces import (
    Letters,
    Path,
    UnsupportedSpace,
    check_classes,
    letters_of,
    path_name,
    refusal,
)
from dreamer_async.envs.spec import ActionSpec

Array = NDArray[Any]

FEW_NUMBERS = 32
"""Up to so many whole numbers per dimension are classes; of more, near ones are alike."""
MOST_PARTS = 256
"""Each part of several actions is a head of the policy, and heads are computed one by one."""
UNBOUNDED = 0.9
"""A bound beyond this share of the largest float is how some environments say that it is none."""
OWN = 1
"""Where there are no bounds, actions reach from minus this to this, as in the official code."""

_LOW, _HIGH = np.array(-1, np.float32), np.array(1, np.float32)  # numpy is slow with numbers


@dataclass(frozen=True, eq=False)
class ActionWriter:
    """How to hand one class or one vector to an environment, as one array."""

    spec: ActionSpec
    """What comes in."""
    shape: tuple[int, ...]
    """Shape of one action on the environment's side."""
    dtype: np.dtype[Any]
    """Type on the environment's side."""
    low: Array
    """Lower bound of each dimension that is decided, or the first class."""
    high: Array
    """Upper bound of each dimension that is decided (continuous only)."""
    plain: bool = False
    """Bounds and shape are those of our own actions, so that there is nothing to convert."""
    free: NDArray[np.bool_] = field(default_factory=lambda: np.array(True))
    """Which dimensions are decided, where not all are: the others have one possible value."""
    fixed: Array = field(default_factory=lambda: np.array(0.0))
    """Value of each dimension, where not all are decided."""
    remark: str = ""
    """What is to be said of its bounds."""

    def one(self, action: Array) -> Any:
        """Convert one valid action, without a batch axis."""
        return self.row(self.write(action[None]), 0)

    def row(self, batch: Array, index: int) -> Any:
        """One action of a batch: a numpy number of a Discrete, an array of a Box."""
        return batch[index] if self.spec.kind == "discrete" else np.asarray(batch[index])

    def write(self, action: Array) -> Array:
        """Convert a valid batch: int32 [N] or float32 [N, A] to [N, *shape], always a copy."""
        if self.spec.kind == "discrete":
            return (action + self.low).astype(self.dtype)
        clipped = np.minimum(np.maximum(action, _LOW), _HIGH)
        if self.plain:
            return clipped.astype(self.dtype)
        scaled = self.low + (clipped.astype(np.float64) + 1) / 2 * (self.high - self.low)
        scaled = np.clip(scaled, self.low, self.high)
        if not self.free.all():
            scaled = self._with_fixed(scaled)
        if self.dtype.kind != "f":
            scaled = np.rint(scaled)
        return scaled.astype(self.dtype, copy=False).reshape(len(action), *self.shape)

    def _with_fixed(self, decided: Array) -> Array:
        """Put what is decided between what is not: [N, A] to [N, all dimensions]."""
        every = np.tile(self.fixed, (len(decided), 1))
        every[:, self.free] = decided
        return every

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {"": self.spec}

    def take(self, columns: Array) -> Array:
        """Convert columns of several actions: float32 [N, columns] to [N, *shape]."""
        return self.write(columns.astype(self.spec.dtype).reshape(-1, *self.spec.shape))

    def describe(self) -> str:
        if self.spec.kind == "discrete":
            return f"{self.dtype} {self.low} to {int(self.low) + self.spec.size - 1}"
        fixed = int(self.free.size - self.free.sum())
        others = f" ({fixed} of them have one possible value)" * bool(fixed)
        return f"{self.dtype} {list(self.shape)} {_span(self.low, self.high)}{others}{self.remark}"


class Leaf(Protocol):
    """How to hand its part of several actions to a space that holds no others."""

    @property
    def parts(self) -> Mapping[str, ActionSpec]:
        """What is decided, by names below that of the space; an empty one is the space's own."""
        ...

    def take(self, columns: Array) -> Any:
        """Convert the columns of its parts, float32 [N, columns], to a batch."""
        ...

    def row(self, batch: Any, index: int) -> Any:
        """One action of such a batch."""
        ...

    def describe(self) -> str:
        """What the environment gets, in words."""
        ...


@dataclass(frozen=True, eq=False)
class ClassesWriter:
    """How to hand several classes to an environment, as one array."""

    sizes: list[int]
    """Number of classes of each element."""
    first: Array
    """First class of each element, [*shape], in the environment's numbers and type."""
    remark: str = ""
    """What is to be said of its bounds."""

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {str(i): ActionSpec("discrete", size) for i, size in enumerate(self.sizes)}

    def take(self, columns: Array) -> Array:
        """[N, elements] to [N, *shape]."""
        classes = columns.astype(np.int64).reshape(len(columns), *self.first.shape)
        return classes.astype(self.first.dtype) + self.first  # modulo the type's size, so never out

    def row(self, batch: Array, index: int) -> Array:
        return np.asarray(batch[index])

    def describe(self) -> str:
        first = self.first.reshape(-1).astype(object)
        span = _span(first, first + np.array(self.sizes) - 1)
        return f"{self.first.dtype} {list(self.first.shape)} {span}{self.remark}"


@dataclass(frozen=True, eq=False)
class TextWriter:
    """How to hand a text to an environment: one class per character, and 0 for its end.

    Characters that no text lacks cannot be its end, so that they have one class less.
    """

    letters: Letters

    @property
    def parts(self) -> dict[str, ActionSpec]:
        shortest, size = self.letters.shortest, len(self.letters.alphabet)
        sizes = [size + (i >= shortest) for i in range(self.letters.longest)]
        return {str(i): ActionSpec("discrete", size) for i, size in enumerate(sizes)}

    def take(self, columns: Array) -> list[str]:
        """[N, longest] to N texts."""
        classes = columns.astype(np.int64)
        classes[:, : self.letters.shortest] += 1
        return [self.letters.decode(row) for row in classes.tolist()]

    def row(self, batch: list[str], index: int) -> str:
        return batch[index]

    def describe(self) -> str:
        letters = self.letters
        return (
            f"a text of {letters.shortest} to {letters.longest} characters out of "
            f"{len(letters.alphabet)}"
        )


@dataclass(frozen=True, eq=False)
class FixedWriter:
    """What an environment gets where its space has one possible value."""

    value: Array

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {}

    def take(self, columns: Array) -> Array:
        return np.repeat(self.value[None], len(columns), 0)

    def row(self, batch: Array, index: int) -> Array:
        return np.asarray(batch[index])

    def describe(self) -> str:
        return f"{self.value.dtype} {list(self.value.shape)} of one possible value"


@dataclass(frozen=True)
class Placed:
    """A leaf and its columns of several actions."""

    name: str
    leaf: Leaf
    place: slice


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
        lines: list[str] = []
        _each(self.tree, lambda part: lines.append(f"{part.name}: {part.leaf.describe()}"))
        return "; ".join(line.removeprefix(": ") for line in lines)


def _each(tree: Tree, function: Callable[[Placed], Any]) -> Any:
    """The same nesting with something else in place of its leaves."""
    if isinstance(tree, dict):
        return {key: _each(part, function) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_each(part, function) for part in tree)
    return function(tree)


def write_actions(space: gymnasium.Space[Any]) -> ActionWriter | SeveralWriter:
    """Plan how to write actions; UnsupportedSpace if that is not possible."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        leaf = _leaf(space, ())
        if isinstance(leaf, ActionWriter):
            return leaf
    parts: list[tuple[str, ActionSpec]] = []
    tree = _plant(space, (), parts)
    names = [name for name, _ in parts]
    if not parts:
        raise UnsupportedSpace(f"action space {space} leaves nothing to decide")
    if len(set(names)) < len(names):
        raise UnsupportedSpace(f"action keys {names} are ambiguous")
    if len(parts) > MOST_PARTS:
        raise UnsupportedSpace(
            f"action space {space!r:.200} asks for {len(parts):,} decisions at once, but "
            f"{MOST_PARTS} are the most: each is a head of the policy (wrap the environment)"
        )
    return SeveralWriter(ActionSpec.several(dict(parts)), tree)


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
    if isinstance(leaf, FixedWriter):
        raise UnsupportedSpace(f"action space {space} leaves nothing to decide")
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
    bounds = _bounds(space)
    if all(low == high for low, high in bounds):
        return FixedWriter(np.array(space.low))
    whole = space.dtype.kind != "f"
    if whole and all(high - low < FEW_NUMBERS for low, high in bounds):
        first = np.array([low for low, _ in bounds], space.dtype).reshape(space.shape)
        return ClassesWriter([high - low + 1 for low, high in bounds], first, _own(space, bounds))
    low, high = np.array([_inward(*ends) if whole else ends for ends in bounds], np.float64).T
    free = low < high
    spec = ActionSpec("continuous", int(free.sum()))
    plain = not whole and len(space.shape) == 1 and bool(((low == -1) & (high == 1)).all())
    shape, dtype, own = tuple(space.shape), np.dtype(space.dtype), _own(space, bounds)
    return ActionWriter(spec, shape, dtype, low[free], high[free], plain, free, low, own)


def _bounds(space: spaces.Box) -> list[tuple[Any, Any]]:
    """What actions are scaled to in each dimension: the bounds of the space where it has both.

    Where it lacks one, the interval of [-1, 1]'s length in it that lies nearest to [-1, 1].
    """
    bounds = []
    for low, high, below, above in zip(*_declared(space), strict=True):
        if not below:
            high = min(OWN, high) if above else OWN
            low = max(low, high - 2 * OWN)
        elif not above:
            low = max(-OWN, low)
            high = min(high, low + 2 * OWN)
        bounds.append((low, high))
    return bounds


def _declared(space: spaces.Box) -> tuple[list[Any], list[Any], list[bool], list[bool]]:
    """Bounds of each dimension, as Python's numbers, and whether they are more than a way to write
    that there is none: the infinite, and the largest of a type that is made to hold anything."""
    low, high = (bound.reshape(-1) for bound in (space.low, space.high))
    below, above = space.bounded_below.reshape(-1), space.bounded_above.reshape(-1)
    dtype: Any = space.dtype
    if dtype.kind == "f":
        largest = min(np.finfo(dtype).max, np.finfo(np.float32).max, key=float)
        limit = UNBOUNDED * float(largest)
        below, above = low > -limit, high < limit
    elif dtype.itemsize >= 4:
        info = np.iinfo(dtype)
        below, above = below & ((low > info.min) | (low == 0)), above & (high < info.max - 1)
    low, high = (bound.astype(int) if bound.dtype == bool else bound for bound in (low, high))
    return low.tolist(), high.tolist(), below.tolist(), above.tolist()


def _inward(low: int, high: int) -> tuple[float, float]:
    """Whole numbers as the nearest real ones that are not outside of them."""
    first, last = float(low), float(high)
    return (
        np.nextafter(first, math.inf) if int(first) < low else first,
        np.nextafter(last, -math.inf) if int(last) > high else last,
    )


def _own(space: spaces.Box, bounds: list[tuple[Any, Any]]) -> str:
    """Say how many dimensions have bounds that are not the space's."""
    low, high, *_ = _declared(space)
    theirs = zip(low, high, strict=True)
    count = sum(mine != declared for mine, declared in zip(bounds, theirs, strict=True))
    if not count:
        return ""
    return f" (a bound is infinite in {count} of {len(low)} dimension{'s' * (len(low) > 1)})"


def _span(low: Array, high: Array) -> str:
    """Bounds of numbers in words."""
    same = (low == low[0]).all() and (high == high[0]).all()
    return f"from {low.min():g} to {high.max():g}" + " or less" * (not same)
