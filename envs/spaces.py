"""From gymnasium's observation spaces to our specs, and the values with them.

Dicts and Tuples nest; what lies in them is a leaf, and has a path: the keys and positions that lead
to it. This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch, C characters of the longest text.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs import images
from dreamer_async.envs.observed.boxes import (
    category_reader,
    image_reader,
    of_picture,
    vector_reader,
)
from dreamer_async.envs.observed.reader import (
    MOST_CLASSES,
    Letters,
    ObsReader,
    Path,
    UnsupportedSpace,
    is_vector,
    name_of,
    path_name,
)
from dreamer_async.envs.spec import ObsSpec, check_observations
from dreamer_async.envs.view import PLAIN, Kinds, View, key_of, parts

Array = NDArray[Any]

MOST_LETTERS = 2**14
"""Characters of the longest text times characters of its alphabet: as much as an MLP can take."""

_DTYPES = {"image": "uint8", "vector": "float32", "category": "int32"}
"""What the agent sees of each kind of key."""

_REFUSED: dict[type[gymnasium.Space[Any]], tuple[str, str]] = {
    spaces.Sequence: ("has no fixed length", "a Box that is padded to the longest"),
    spaces.Graph: ("has no fixed size", "Boxes of nodes and edges, padded to the largest"),
    spaces.OneOf: ("is another one in every step", "a Dict of them all and a Discrete that tells"),
}
"""What is wrong with a kind of space, and what to have in its place."""


def read_space(
    space: gymnasium.Space[Any], view: View = PLAIN, hidden: frozenset[str] = frozenset()
) -> tuple[ObsReader, ...]:
    """Plan how to read observations of `space` without the keys `hidden`, as the user views it.

    Raises UnsupportedSpace if that is not possible.
    """
    if absent := hidden - {path_name(path) for path, _ in leaves(space)}:
        raise UnsupportedSpace(f"observation space {space} has no {sorted(absent)} to hide")
    kinds = Kinds(view.kinds)
    every = _readers(space, (), kinds, hidden)
    if unknown := kinds.unknown():
        raise UnsupportedSpace(unknown)
    readers = _fitted(tuple(every), view.image)
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


def leaves(space: gymnasium.Space[Any], path: Path = ()) -> list[tuple[Path, Any]]:
    """Spaces that hold no others, each with its path, in the order of the environment."""
    if (inner := children(space)) is None:
        return [(path, space)]
    return [leaf for key, part in inner for leaf in leaves(part, (*path, key))]


def children(space: gymnasium.Space[Any]) -> list[tuple[str | int, Any]] | None:
    """Spaces in a Dict or Tuple with their keys or places; None for a space that holds none."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces)) if isinstance(space, spaces.Tuple) else None


def without(space: Any, hidden: frozenset[str], path: Path = ()) -> Any:
    """The space without some leaves of its Dicts."""
    if not hidden or not isinstance(space, spaces.Dict):
        return space
    paths = {key: (*path, key) for key in space.spaces}
    shown = [key for key, there in paths.items() if path_name(there) not in hidden]
    parts = ((key, without(space[key], hidden, paths[key])) for key in shown)
    return spaces.Dict(OrderedDict(parts))


def refusal(what: str, space: gymnasium.Space[Any], path: Path) -> str:
    """Why no agent here can use a space, and what to have in its place."""
    where = f" of key {path_name(path)}" if path else ""
    known = [words for kind, words in _REFUSED.items() if isinstance(space, kind)]
    wrong, instead = known[0] if known else ("is of an unknown kind", "a Box of numbers")
    return f"{what} space {space}{where} {wrong}: wrap the environment to have {instead}"


def _fitted(readers: tuple[ObsReader, ...], how: str) -> tuple[ObsReader, ...]:
    """Readers whose images have one size that the networks take."""
    pictures = [reader.picture for reader in readers if reader.picture is not None]
    if how != PLAIN.image and not pictures:  # nothing would happen, and nobody would know
        raise UnsupportedSpace(f"env.image={how} is for images, and there are none; leave it out")
    fitted = iter(images.fit(pictures, how))
    return tuple(
        reader if reader.picture is None else of_picture(reader, next(fitted)) for reader in readers
    )


def _readers(
    space: gymnasium.Space[Any], path: Path, kinds: Kinds, hidden: frozenset[str]
) -> list[ObsReader]:
    """How to read what is not hidden, as the user says or else as its space does."""
    if path_name(path) in hidden:
        return []
    kind, inner = kinds.of(path, name_of(path, "")), children(space)
    if inner is None:
        kinds.know(path)
    if kind == "hidden":
        return []
    if inner is None:
        reader = _as_told(space, path, kind) if kind else _reader(space, path)
        return [replace(reader, chosen=bool(kind), others="|".join(_others(space, reader)))]
    if kind:
        each = key_of((*path, *(key for key, _ in inner[:1])))
        raise UnsupportedSpace(f"{key_of(path)} holds other keys: say it of each, such as {each}")
    return [reader for key, part in inner for reader in _readers(part, (*path, key), kinds, hidden)]


def _reader(space: gymnasium.Space[Any], path: Path) -> ObsReader:
    """How to read one leaf; UnsupportedSpace says how to leave it out if that is impossible."""
    try:
        return _leaf_reader(space, path)
    except UnsupportedSpace as error:
        hide = f", or leave it out: --as {path_name(path)}=hidden" if path else ""
        raise UnsupportedSpace(f"{error}{hide}") from None


def _leaf_reader(space: gymnasium.Space[Any], path: Path) -> ObsReader:
    if isinstance(space, spaces.Discrete):
        return _discrete_reader(space, path)
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete_reader(space, path)
    if isinstance(space, spaces.MultiBinary):
        return _multi_binary_reader(space, path)
    if isinstance(space, spaces.Text):
        return _text_reader(space, path)
    if isinstance(space, spaces.Box):
        return _box_reader(space, path)
    raise UnsupportedSpace(refusal("observation", space, path))


def _discrete_reader(space: spaces.Discrete, path: Path) -> ObsReader:
    """One category."""
    start, size = int(space.start), int(space.n)
    check_classes(space, size, start + size - 1)
    first, last = np.array(start), np.array(start + size - 1)
    spec = ObsSpec((), "int32", size)
    return ObsReader(name_of(path, "state"), path, spec, first=first, last=last)


def _multi_discrete_reader(space: spaces.MultiDiscrete, path: Path) -> ObsReader:
    """A vector of categories, all with as many classes as the largest has."""
    start, size = (np.asarray(part).astype(np.int64) for part in (space.start, space.nvec))
    if not size.size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    count, last = int(size.max()), start + size - 1
    check_classes(space, count, int(last.max()), size.size)
    spec = ObsSpec((size.size,), "int32", count)
    name = name_of(path, "state")
    return ObsReader(name, path, spec, shape=size.shape, first=start, last=last)


def _multi_binary_reader(space: spaces.MultiBinary, path: Path) -> ObsReader:
    """A vector of categories of two classes."""
    shape = tuple(space.shape)
    check_classes(space, 2, 1, math.prod(shape))
    spec = ObsSpec((math.prod(shape),), "int32", 2)
    first, last = np.zeros(shape, np.int64), np.ones(shape, np.int64)
    return ObsReader(name_of(path, "state"), path, spec, shape=shape, first=first, last=last)


def _text_reader(space: spaces.Text, path: Path) -> ObsReader:
    """One category for each character up to the longest text."""
    letters = letters_of("observation", space)
    spec = ObsSpec((letters.longest,), "int32", len(letters.alphabet) + 1)
    return ObsReader(name_of(path, "text"), path, spec, letters=letters)


def letters_of(what: str, space: spaces.Text) -> Letters:
    """The characters of a text space; UnsupportedSpace where there are none or too many."""
    letters = Letters.of(space)
    longest, alphabet = letters.longest, len(letters.alphabet)
    if not longest or not alphabet:
        raise UnsupportedSpace(f"{what} space {space} is empty")
    if longest * (alphabet + 1) > MOST_LETTERS:
        raise UnsupportedSpace(
            f"{what} space Text of up to {longest:,} characters out of {alphabet:,} is too large: "
            f"each is a category of {alphabet + 1:,} classes, which may be {MOST_LETTERS:,} in all"
        )
    return letters


def check_classes(
    space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
    classes: int,
    last: int,
    count: int = 1,
) -> None:
    """Raise UnsupportedSpace where classes are too many for a network or for their own type.

    `count` is how many numbers of so many classes each there are.
    """
    if classes > MOST_CLASSES:
        raise UnsupportedSpace(
            f"space {space} has {classes:,} classes, but {MOST_CLASSES:,} are the most: each is "
            "one input or output of the networks (wrap the environment to use a Box of numbers)"
        )
    if classes * count > MOST_CLASSES:
        raise UnsupportedSpace(
            f"{count:,} numbers of {classes:,} classes each are {count * classes:,} inputs or "
            f"outputs of the networks, of which {MOST_CLASSES:,} are the most"
        )
    if last > np.iinfo(space.dtype).max:
        raise UnsupportedSpace(f"space {space} has a class {last} that its {space.dtype} lacks")


def _box_reader(space: spaces.Box, path: Path) -> ObsReader:
    """An image if it looks like one, else a vector."""
    return image_reader(space, path) if images.is_picture(space) else vector_reader(space, path)


def _as_told(space: gymnasium.Space[Any], path: Path, kind: str) -> ObsReader:
    """How to read a key as the user says."""
    name, more = parts(kind)
    if name == "vector" and isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    ):
        return vector_reader(space, path)
    if isinstance(space, spaces.Box):
        told = image_reader if name == "image" else category_reader
        return told(space, path, more)
    if name == "category" and not more:
        return _reader(space, path)
    raise UnsupportedSpace(f"--as {key_of(path)}={kind} is not possible for its space {space}")


def _others(space: gymnasium.Space[Any], reader: ObsReader) -> list[str]:
    """What else the user may say that a leaf is."""
    found = [kind for kind, dtype in _DTYPES.items() if dtype != reader.spec.dtype]
    found = [kind for kind in found if _is_possible(space, reader.path, kind)]
    if reader.spec.dtype != "int32" and "category" not in found and _may_be_counted(space):
        found.append("category:COUNT")
    return found + ["hidden"] * bool(reader.path)  # something has to be seen


def _is_possible(space: gymnasium.Space[Any], path: Path, kind: str) -> bool:
    try:
        _as_told(space, path, kind)
    except UnsupportedSpace:
        return False
    return True


def _may_be_counted(space: gymnasium.Space[Any]) -> bool:
    """Tell whether its numbers are whole, so that how many they are may be said."""
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer)
