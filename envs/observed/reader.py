"""A leaf of an observation space, and the values in it as the agent sees them.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: N rows of one batch, C characters of the longest text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs import images
from dreamer_async.envs.spec import RESERVED, ObsSpec, Taken
from dreamer_async.envs.view import key_of

Array = NDArray[Any]

Path = tuple[Any, ...]
"""Keys of Dicts, which are strings as a rule, and positions in Tuples, from the outside in."""

MOST_CLASSES = 2**20
"""Each class is an input or an output of the networks, and travels exactly in int32 and float32."""


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


def path_name(path: Path) -> str:
    """A path as people write it."""
    return "/".join(map(str, path))


def name_of(path: Path, plain: str) -> str:
    """Join keys with slashes; without dots, which cannot be in the name of a torch module, and
    with a prefix where it would be a name of ours."""
    name = path_name(path).replace(".", "_") or plain
    return f"obs_{name}" if name in RESERVED else name
