"""What a user says about a task beside its name: how it is built, read and stepped.

Observation keys are named by their path joined with slashes, or as they are printed. An observation
that is no dictionary has one key, `observation`, which may also be named as it is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamer_async.envs import names


@dataclass(frozen=True)
class View:
    """One way to build, read and step the environments of a task."""

    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments, as JSON can carry them, of what builds the environment."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """{observation key: what it is to be read as}, where its space alone would say otherwise:
    hidden, vector, image, image:hwc, image:chw, category or category:COUNT."""
    image: str = "pad"
    """How images whose sides the networks cannot halve often enough are made to fit: pad, resize,
    resize:SIDE or resize:HEIGHTxWIDTH."""
    repeat: int = 1
    """How often each action is taken (the action repeat)."""

    @classmethod
    def of(cls, choice: Choice) -> View:
        """What was chosen together with the name of a task."""
        return cls(choice.args, choice.kinds, choice.image, choice.repeat)


class Choice(Protocol):
    """A task and its view, as the settings of a run have them."""

    @property
    def suite(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def args(self) -> Mapping[str, Any]: ...
    @property
    def kinds(self) -> Mapping[str, str]: ...
    @property
    def image(self) -> str: ...
    @property
    def repeat(self) -> int: ...


PLAIN = View()
"""A task as it is."""

ALONE = "observation"
"""Name of the only key where there is no dictionary."""
_ALONE = (ALONE, "image", "vector", "state")
"""It is also printed as one of these."""


class Kinds:
    """Kinds by key, and which keys were met."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._met: set[str] = set()
        self._known: dict[str, str] = {}

    def of(self, path: tuple[str | int, ...], printed: str = "") -> str:
        """The kind of a key, empty if nothing was said of it."""
        for name in {"/".join(map(str, path)): None, printed: None} if path else _ALONE:
            if name in self._kinds:
                self._met.add(name)
                return self._kinds[name]
        return ""

    def know(self, path: tuple[str | int, ...]) -> None:
        """Remember a key that could be named."""
        name = key_of(path)
        self._known[names.squash(name)] = name

    def unknown(self) -> str:
        """Complain of the first key that no space had; empty if there is none."""
        for key in self._kinds:
            if key not in self._met:
                close = names.nearest(key, self._known)
                return names.describe("observation key", key, close, self._known.values())
        return ""


def key_of(path: tuple[str | int, ...]) -> str:
    """How `--as` names a key."""
    return "/".join(map(str, path)) or ALONE


def parts(kind: str) -> tuple[str, str]:
    """Kind and what stands behind its colon: category:11 is category, 11."""
    name, _, more = kind.partition(":")
    return name, more
