"""From gymnasium's observation spaces to our specs, and the values with them.

Dicts and Tuples nest; what lies in them is a leaf, and has a path: the keys and positions that lead
to it. This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch, C characters of the longest text.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs import images
from dreamer_async.envs.spec import RESERVED, ObsSpec, Taken, check_observations
from dreamer_async.envs.view import PLAIN, Kinds, View, key_of, parts

Array = NDArray[Any]

Path = tuple[Any, ...]
"""Keys of Dicts, which are strings as a rule, and positions in Tuples, from the outside in."""

MOST_CLASSES = 2**20
"""Each class is an input or an output of the networks, and travels exactly in int32 and float32."""
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


class UnsupportedSpace(ValueError):
    """An observation or action space that no agent here can use; the message names it."""


@dataclass(frozen=True)
class Letters:
    """Texts as classes: one for each character, and 0 after the end."""

    alphabet: tuple[str, ...]
    """Character of each class from 1 on."""
    shortest: int
    longest: int

    @classmethod
    def of(cls, space: spaces.Text) -> Letters:
        """The alphabet is sorted: gymnasium compares it as a set, and up to 1.3 a set's order
        differs from process to process."""
        return cls(tuple(sorted(space.character_set)), space.min_length, space.max_length)

    @cached_property
    def classes(self) -> dict[str, int]:
        """Class of each character."""
        return {letter: number for number, letter in enumerate(self.alphabet, 1)}

    def encode(self, text: str) -> NDArray[np.int32]:
        """Classes of a valid text: [C]."""
        classes = np.zeros(self.longest, np.int32)
        classes[: len(text)] = [self.classes[letter] for letter in text]
        return classes

    def decode(self, classes: list[int]) -> str:
        """The text of classes up to the first 0."""
        length = classes.index(0) if 0 in classes else len(classes)
        return "".join(self.alphabet[number - 1] for number in classes[:length])


@dataclass(frozen=True)
class ObsReader:
    """How to read one observation key from what an environment delivers."""

    name: str
    """Key on our side."""
    path: Path
    """Where the leaf is on the environment's side; empty if it is the whole observation."""
    spec: ObsSpec
    """What comes out."""
    shape: tuple[int, ...] = ()
    """Shape of one value on the environment's side."""
    first: Array = field(default_factory=lambda: np.array(0), compare=False)
    """First class of each element, [*shape], in the environment's numbers."""
    last: Array = field(default_factory=lambda: np.array(0), compare=False)
    """Last class of each element, [*shape]."""
    letters: Letters | None = None
    """The value is a text in these."""
    picture: images.Picture | None = None
    """How an image is made of it."""
    chosen: bool = False
    """The user said what it is."""
    others: str = ""
    """What else the user may say it is, with bars between."""

    def read(self, obs: Any) -> Array:
        """Convert a batch: [N, *] as delivered to [N, *spec.shape]."""
        for key in self.path:
            obs = obs[key]
        return self.convert(np.asarray(obs, None if self.letters is None else object))

    def convert(self, value: Array) -> Array:
        """Convert valid values of this key: [N, *shape] to [N, *spec.shape]."""
        if self.letters is not None:
            return np.stack([self.letters.encode(text) for text in value.tolist()])
        if self.spec.dtype == "int32":
            value = value.reshape(len(value), *self.shape)
            if value.dtype != np.int32 or self.first.any():  # a narrow type could not hold it
                value = value.astype(np.int64) - self.first
            return value.reshape(len(value), *self.spec.shape).astype(np.int32)
        if self.spec.dtype == "float32":
            return value.reshape(len(value), -1).astype(np.float32)
        assert self.picture is not None, self
        return self.picture.convert(value)

    def taken(self) -> Taken:
        """What this key was taken for."""
        if self.picture is not None:
            of = self.picture.taken(key_of(self.path), chosen=self.chosen)
            return of._replace(others=self.others)
        return Taken(key_of(self.path), self._words(), self.chosen, others=self.others)

    def _words(self) -> str:
        """What a key that is no image was taken for."""
        count = math.prod(self.spec.shape)
        if self.letters is not None:
            return f"a text of {count} characters out of {len(self.letters.alphabet)}"
        if self.spec.dtype == "float32":
            return f"a vector of {count}"
        if self.spec.shape:
            return f"{count} categories of {self.spec.classes} classes each"
        return f"a category of {self.spec.classes} classes"


def is_vector(reader: object) -> TypeGuard[ObsReader]:
    """Whether all that this reader does is to make one flat float32 vector."""
    return isinstance(reader, ObsReader) and reader.spec.dtype == "float32"


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


def path_name(path: Path) -> str:
    """A path as people write it."""
    return "/".join(map(str, path))


def refusal(what: str, space: gymnasium.Space[Any], path: Path) -> str:
    """Why no agent here can use a space, and what to have in its place."""
    where = f" of key {path_name(path)}" if path else ""
    known = [words for kind, words in _REFUSED.items() if isinstance(space, kind)]
    wrong, instead = known[0] if known else ("is of an unknown kind", "a Box of numbers")
    return f"{what} space {space}{where} {wrong}: wrap the environment to have {instead}"


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


def _readers(
    space: gymnasium.Space[Any], path: Path, kinds: Kinds, hidden: frozenset[str]
) -> list[ObsReader]:
    """How to read what is not hidden, as the user says or else as its space does."""
    if path_name(path) in hidden:
        return []
    kind, inner = kinds.of(path, _name(path, "")), children(space)
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
    return ObsReader(_name(path, "state"), path, spec, first=first, last=last)


def _multi_discrete_reader(space: spaces.MultiDiscrete, path: Path) -> ObsReader:
    """A vector of categories, all with as many classes as the largest has."""
    start, size = (np.asarray(part).astype(np.int64) for part in (space.start, space.nvec))
    if not size.size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    count, last = int(size.max()), start + size - 1
    check_classes(space, count, int(last.max()), size.size)
    spec = ObsSpec((size.size,), "int32", count)
    name = _name(path, "state")
    return ObsReader(name, path, spec, shape=size.shape, first=start, last=last)


def _multi_binary_reader(space: spaces.MultiBinary, path: Path) -> ObsReader:
    """A vector of categories of two classes."""
    shape = tuple(space.shape)
    check_classes(space, 2, 1, math.prod(shape))
    spec = ObsSpec((math.prod(shape),), "int32", 2)
    first, last = np.zeros(shape, np.int64), np.ones(shape, np.int64)
    return ObsReader(_name(path, "state"), path, spec, shape=shape, first=first, last=last)


def _text_reader(space: spaces.Text, path: Path) -> ObsReader:
    """One category for each character up to the longest text."""
    letters = letters_of("observation", space)
    spec = ObsSpec((letters.longest,), "int32", len(letters.alphabet) + 1)
    return ObsReader(_name(path, "text"), path, spec, letters=letters)


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
    return _image_reader(space, path) if images.is_picture(space) else _vector_reader(space, path)


def _as_told(space: gymnasium.Space[Any], path: Path, kind: str) -> ObsReader:
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


def _vector_reader(space: gymnasium.Space[Any], path: Path) -> ObsReader:
    """One flat vector of numbers."""
    shape = tuple(space.shape or ())
    size = math.prod(shape)
    if not size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    spec = ObsSpec((size,), "float32")
    return ObsReader(_name(path, "vector"), path, spec, shape=shape)


def _image_reader(space: spaces.Box, path: Path, order: str = "") -> ObsReader:
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


def _category_reader(space: spaces.Box, path: Path, count: str = "") -> ObsReader:
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
    return ObsReader(name, path, spec, shape=low.shape, first=places[0], last=places[1])


def _says_nothing(space: spaces.Box) -> bool:
    """Tell whether bounds are no more than those of the type."""
    if not np.issubdtype(space.dtype, np.integer):
        return False
    info = np.iinfo(np.dtype(space.dtype).name)
    return int(np.min(space.low)) == info.min and int(np.max(space.high)) == info.max


def _name(path: Path, plain: str) -> str:
    """Join keys with slashes; without dots, which cannot be in the name of a torch module, and
    with a prefix where it would be a name of ours."""
    name = path_name(path).replace(".", "_") or plain
    return f"obs_{name}" if name in RESERVED else name
