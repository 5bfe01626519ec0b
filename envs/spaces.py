"""From gymnasium spaces to our specs, and the values with them.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs import images
from dreamer_async.envs.spec import RESERVED, ActionSpec, ObsSpec, Taken, check_observations
from dreamer_async.envs.view import PLAIN, Kinds, View, key_of, parts

Array = NDArray[Any]

LARGEST_BOUND = 1e6
"""Action bounds beyond this are how some environments write that they have none."""
MOST_CLASSES = 2**20
"""Each class is an input or an output of the networks, and travels exactly in int32 and float32."""

_LOW, _HIGH = np.array(-1, np.float32), np.array(1, np.float32)  # numpy is slow with numbers


class UnsupportedSpace(ValueError):
    """An observation or action space that no agent here can use; the message names it."""


@dataclass(frozen=True)
class ObsReader:
    """How to read one observation key from what an environment delivers."""

    name: str
    """Key on our side."""
    path: tuple[str, ...]
    """Keys of the nested dictionaries on the environment's side; empty if there are none."""
    spec: ObsSpec
    """What comes out."""
    offset: int = 0
    """The environment's first class."""
    shape: tuple[int, ...] = ()
    """Shape of one value on the environment's side."""
    first: Array = field(default_factory=lambda: np.array(0), compare=False)
    """First class of each element, [*shape], in the environment's numbers."""
    last: Array = field(default_factory=lambda: np.array(0), compare=False)
    """Last class of each element, [*shape]."""
    picture: images.Picture | None = None
    """How an image is made of it."""
    chosen: bool = False
    """The user said what it is."""

    def read(self, obs: Any) -> Array:
        """Convert a batch: [N, *] as delivered to [N, *spec.shape]."""
        for key in self.path:
            obs = obs[key]
        return self.convert(np.asarray(obs))

    def convert(self, value: Array) -> Array:
        """Convert valid values of this key: [N, *shape] to [N, *spec.shape]."""
        if self.spec.dtype == "int32":
            value = value.reshape(len(value), *self.spec.shape)
            if self.offset or value.dtype != np.int32:  # a narrow type could not hold the result
                value = value.astype(np.int64) - self.offset
            return value.astype(np.int32)
        if self.spec.dtype == "float32":
            return value.reshape(len(value), -1).astype(np.float32)
        assert self.picture is not None, self
        return self.picture.convert(value)

    def taken(self) -> Taken:
        """What this key was taken for."""
        if self.picture is not None:
            return self.picture.taken(key_of(self.path), chosen=self.chosen)
        count = math.prod(self.spec.shape)
        if self.spec.dtype == "float32":
            words = f"a vector of {count}"
        elif self.spec.shape:
            words = f"{count} categories of {self.spec.classes} classes each"
        else:
            words = f"a category of {self.spec.classes} classes"
        return Taken(key_of(self.path), words, self.chosen)


def is_vector(reader: object) -> TypeGuard[ObsReader]:
    """Whether all that this reader does is to make one flat float32 vector."""
    return isinstance(reader, ObsReader) and reader.spec.dtype == "float32"


def read_space(
    space: gymnasium.Space[Any], view: View = PLAIN, hidden: frozenset[str] = frozenset()
) -> tuple[ObsReader, ...]:
    """Plan how to read observations of `space` without the keys `hidden`, as the user views it.

    Raises UnsupportedSpace if that is not possible.
    """
    kinds = Kinds(view.kinds)
    every = _readers(space, (), kinds)
    if unknown := kinds.unknown():
        raise UnsupportedSpace(unknown)
    if absent := hidden - {"/".join(reader.path) for reader in every}:
        raise UnsupportedSpace(f"observation space {space} has no {sorted(absent)} to hide")
    readers = tuple(reader for reader in every if "/".join(reader.path) not in hidden)
    readers = _fitted(readers, view.image)
    seen = [reader.name for reader in readers]
    if not seen or len(set(seen)) < len(seen):
        raise UnsupportedSpace(f"observation space {space} has no or ambiguous keys: {seen}")
    try:
        check_observations({reader.name: reader.spec for reader in readers})
    except ValueError as error:
        raise UnsupportedSpace(f"observation space {space}: {error}") from None
    return readers


def vector_bounds(
    space: gymnasium.Space[Any], readers: tuple[ObsReader, ...]
) -> dict[str, tuple[float, float]]:
    """Least and largest number that a space declares for each vector that is read from it."""
    bounds = {}
    for reader in filter(is_vector, readers):
        box: Any = space
        for key in reader.path:
            box = box[key]
        if not isinstance(box, spaces.Box):
            continue
        bounds[reader.name] = float(np.min(box.low)), float(np.max(box.high))
    return bounds


def _fitted(readers: tuple[ObsReader, ...], how: str) -> tuple[ObsReader, ...]:
    """Readers whose images have one size that the networks take."""
    pictures = [reader.picture for reader in readers if reader.picture is not None]
    fitted = iter(images.fit(pictures, how))
    return tuple(
        reader if reader.picture is None else _of_picture(reader, next(fitted))
        for reader in readers
    )


def _of_picture(reader: ObsReader, picture: images.Picture) -> ObsReader:
    spec = ObsSpec((*picture.sides, picture.channels), "uint8")
    return replace(reader, picture=picture, spec=spec)


def _readers(space: gymnasium.Space[Any], path: tuple[str, ...], kinds: Kinds) -> list[ObsReader]:
    kind = kinds.of(path, _name(path, ""))
    if not isinstance(space, spaces.Dict):
        kinds.know(path)
    if kind == "hidden":
        return []
    if isinstance(space, spaces.Dict):
        if kind:
            each = key_of((*path, *list(space.spaces)[:1]))
            raise UnsupportedSpace(
                f"{key_of(path)} is a dictionary: say it of its keys, such as {each}"
            )
        return [
            reader
            for key, part in space.spaces.items()
            for reader in _readers(part, (*path, key), kinds)
        ]
    if kind:
        return [replace(_as_told(space, path, kind), chosen=True)]
    return [_reader(space, path)]


def _reader(space: gymnasium.Space[Any], path: tuple[str, ...]) -> ObsReader:
    """How to read what is no dictionary, by what its space says."""
    if isinstance(space, spaces.Discrete):
        return _discrete_reader(space, path)
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete_reader(space, path)
    if isinstance(space, spaces.Box):
        return _box_reader(space, path)
    where = f" of key {'/'.join(path)}" if path else ""
    raise UnsupportedSpace(
        f"observation space {space}{where} is not supported yet; "
        "Box, Discrete, MultiDiscrete and Dict of these are (wrap the environment to convert it, "
        f"or leave the key out: --as {key_of(path)}=hidden)"
    )


def _discrete_reader(space: spaces.Discrete, path: tuple[str, ...]) -> ObsReader:
    """One category."""
    start, size = int(space.start), int(space.n)
    _check_classes(space, size, start + size - 1)
    first, last = np.array(start), np.array(start + size - 1)
    spec = ObsSpec((), "int32", size)
    return ObsReader(_name(path, "state"), path, spec, start, (), first, last)


def _multi_discrete_reader(space: spaces.MultiDiscrete, path: tuple[str, ...]) -> ObsReader:
    """A vector of categories, all with as many classes as the largest has."""
    start, size = (np.asarray(part).astype(np.int64) for part in (space.start, space.nvec))
    offset = int(start.min())
    count = int((start + size).max()) - offset
    _check_classes(space, count, offset + count - 1)
    spec = ObsSpec((size.size,), "int32", count)
    name, last = _name(path, "state"), start + size - 1
    return ObsReader(name, path, spec, offset, size.shape, start, last)


def _check_classes(space: spaces.Discrete | spaces.MultiDiscrete, classes: int, last: int) -> None:
    """Raise UnsupportedSpace where classes are too many for a network or for their own type."""
    if classes > MOST_CLASSES:
        raise UnsupportedSpace(
            f"space {space} has {classes:,} classes, but {MOST_CLASSES:,} are the most: each is "
            "one input or output of the networks (wrap the environment to use a Box of numbers)"
        )
    if last > np.iinfo(space.dtype).max:
        raise UnsupportedSpace(f"space {space} has a class {last} that its {space.dtype} lacks")


def _box_reader(space: spaces.Box, path: tuple[str, ...]) -> ObsReader:
    """An image if it looks like one, else a vector."""
    return _image_reader(space, path) if images.is_picture(space) else _vector_reader(space, path)


def _as_told(space: gymnasium.Space[Any], path: tuple[str, ...], kind: str) -> ObsReader:
    """How to read a key as the user says."""
    name, more = parts(kind)
    if name == "vector" and isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    ):
        return _vector_reader(space, path)
    if isinstance(space, spaces.Box):
        told = _image_reader if name == "image" else _category_reader
        return told(space, path, more)
    if name == "category" and not more:
        return _reader(space, path)
    raise UnsupportedSpace(f"--as {key_of(path)}={kind} is not possible for its space {space}")


def _vector_reader(space: gymnasium.Space[Any], path: tuple[str, ...]) -> ObsReader:
    """One flat vector of numbers."""
    shape = tuple(space.shape or ())
    size = math.prod(shape)
    if not size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    spec = ObsSpec((size,), "float32")
    return ObsReader(_name(path, "vector"), path, spec, shape=shape)


def _image_reader(space: spaces.Box, path: tuple[str, ...], order: str = "") -> ObsReader:
    """An image, whose size the networks may not yet take."""
    picture = images.picture_of(space, order)
    if picture is None:
        raise UnsupportedSpace(
            f"observation space {space} is no image: it needs 2 or 3 axes (4 with stacked frames; "
            "the order hwc or chw is for 3) and finite bounds, the same for all numbers"
        )
    name = _name(path, "image")
    reader = ObsReader(name, path, ObsSpec((), "uint8"), shape=picture.shape, picture=picture)
    return _of_picture(reader, picture)


def _category_reader(space: spaces.Box, path: tuple[str, ...], count: str = "") -> ObsReader:
    """Whole numbers as categories, as many as `count` says or else the bounds of the space."""
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if not low.size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    first = float(low.min()) if np.isfinite(low).all() else 0.0
    last = first + int(count) - 1 if count else float(high.max())
    key = key_of(path)
    if not (np.isfinite(last) and np.array_equal([first, last], np.rint([first, last]))):
        raise UnsupportedSpace(
            f"{key} has bounds of {first:g} to {last:g}, which give no number of categories: say "
            f"how many there are, such as --as {key}=category:11 for whole numbers from {first:g}"
        )
    if not count and _says_nothing(space):
        raise UnsupportedSpace(
            f"{key} may hold any {space.dtype}, which does not say how many categories there "
            f"are: such as --as {key}=category:11 for {first:g} to {first + 10:g}"
        )
    if last > high.max():
        most = int(high.max() - first) + 1
        raise UnsupportedSpace(f"--as {key}=category:{count} is more than its {most} numbers")
    classes = int(last - first) + 1
    if classes * low.size > MOST_CLASSES:
        raise UnsupportedSpace(
            f"{key} would be {low.size:,} categories of {classes:,}, each one input of the "
            f"networks; {MOST_CLASSES:,} in all are the most"
        )
    places = np.full(low.shape, first), np.minimum(high, last)
    spec = ObsSpec((low.size,) if low.shape else (), "int32", classes)
    name = _name(path, "state")
    return ObsReader(name, path, spec, int(first), low.shape, *places)


def _says_nothing(space: spaces.Box) -> bool:
    """Tell whether bounds are no more than those of the type."""
    if not np.issubdtype(space.dtype, np.integer):
        return False
    info = np.iinfo(np.dtype(space.dtype).name)
    return int(np.min(space.low)) == info.min and int(np.max(space.high)) == info.max


def _name(path: tuple[str, ...], plain: str) -> str:
    """Join keys with slashes; without dots, which cannot be in the name of a torch module, and
    with a prefix where it would be a name of ours."""
    name = "/".join(path).replace(".", "_") or plain
    return f"obs_{name}" if name in RESERVED else name


@dataclass(frozen=True, eq=False)
class ActionWriter:
    """How to hand our actions to an environment."""

    spec: ActionSpec
    """What comes in."""
    shape: tuple[int, ...]
    """Shape of one action on the environment's side."""
    dtype: np.dtype[Any]
    """Type on the environment's side."""
    low: Array
    """Lower bound of each dimension, or the first class."""
    high: Array
    """Upper bound of each dimension (continuous only)."""
    plain: bool = False
    """Bounds and shape are those of our own actions, so that there is nothing to convert."""

    def one(self, action: Array) -> Any:
        """Convert one valid action, without a batch axis."""
        return self.write(action[None])[0]

    def write(self, action: Array) -> Array:
        """Convert a valid batch: int32 [N] or float32 [N, A] to [N, *shape], always a copy."""
        if self.spec.kind == "discrete":
            return (action + self.low).astype(self.dtype)
        clipped = np.minimum(np.maximum(action, _LOW), _HIGH)
        if self.plain:
            return clipped.astype(self.dtype)
        scaled = self.low + (clipped.astype(np.float64) + 1) / 2 * (self.high - self.low)
        scaled = np.clip(scaled, self.low, self.high)
        return scaled.astype(self.dtype, copy=False).reshape(len(action), *self.shape)


@dataclass(frozen=True, eq=False)
class SeveralWriter:
    """How to hand several actions to an environment, which takes them as a dictionary or array."""

    spec: ActionSpec
    """What comes in."""
    writers: tuple[tuple[tuple[str, ...], ActionWriter], ...]
    """Keys of the nested dictionaries and writer of each; no keys in an array."""
    array: tuple[tuple[int, ...], np.dtype[Any]] | None
    """Shape and type of the array, None for a dictionary."""

    def one(self, action: Array) -> Any:
        """Convert one valid action: float32 [C] to a nested dictionary or an array."""
        values = [
            writer.one(action[place].astype(writer.spec.dtype).reshape(writer.spec.shape))
            for (_, writer), place in zip(self.writers, self.spec.slices(), strict=True)
        ]
        if self.array is not None:
            shape, dtype = self.array
            return np.array(values, dtype).reshape(shape)
        nested: dict[str, Any] = {}
        for (path, _), value in zip(self.writers, values, strict=True):
            inner = nested
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
        return nested


def write_actions(space: gymnasium.Space[Any]) -> ActionWriter | SeveralWriter:
    """Plan how to write actions one by one; UnsupportedSpace if that is not possible."""
    if isinstance(space, spaces.MultiDiscrete):
        sizes = np.asarray(space.nvec).reshape(-1).tolist()
        starts = np.asarray(space.start).reshape(-1).tolist()
        plain = [spaces.Discrete(n, start=s) for n, s in zip(sizes, starts, strict=True)]
        array = (tuple(space.nvec.shape), np.dtype(space.dtype))
        return _several([((str(i),), part) for i, part in enumerate(plain)], array)
    if isinstance(space, spaces.Dict):
        return _several(_leaves(space, ()), None)
    return write_space(space)


def _leaves(
    space: gymnasium.Space[Any], path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], gymnasium.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in _leaves(part, (*path, key))]
    return [(path, space)]


def _several(
    parts: list[tuple[tuple[str, ...], gymnasium.Space[Any]]],
    array: tuple[tuple[int, ...], np.dtype[Any]] | None,
) -> SeveralWriter:
    writers = tuple((path, write_space(part)) for path, part in parts)
    specs = {"/".join(path): writer.spec for path, writer in writers}
    if len(specs) < len(writers) or not writers:
        raise UnsupportedSpace(f"action keys {[path for path, _ in parts]} are none or ambiguous")
    return SeveralWriter(ActionSpec.several(specs), writers, array)


def write_space(space: gymnasium.Space[Any]) -> ActionWriter:
    """Plan how to write actions of `space` in batches; UnsupportedSpace if not possible."""
    if isinstance(space, spaces.Discrete):
        _check_classes(space, int(space.n), int(space.start) + int(space.n) - 1)
        spec = ActionSpec("discrete", int(space.n))
        start = np.array(int(space.start), np.int64)
        return ActionWriter(spec, (), np.dtype(space.dtype), start, start)
    if not isinstance(space, spaces.Box):
        raise UnsupportedSpace(
            f"action space {space} is not supported here; Discrete and Box are, in Python "
            "environments also MultiDiscrete and Dict (wrap the environment to convert it)"
        )
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    if not low.size:
        raise UnsupportedSpace(f"action space {space} is empty, so that there is nothing to decide")
    if not (np.abs([low, high]) < LARGEST_BOUND).all() or not (low < high).all():
        raise UnsupportedSpace(
            f"action space {space} has no finite bounds that actions could be scaled to; "
            "wrap the environment so that it has"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise UnsupportedSpace(f"action space {space} is a Box of whole numbers, not of reals")
    spec = ActionSpec("continuous", len(low))
    plain = len(space.shape) == 1 and bool((low == -1).all() and (high == 1).all())
    return ActionWriter(spec, tuple(space.shape), np.dtype(space.dtype), low, high, plain)
