"""What a user says about a task beside its name: how it is built, read and stepped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class View:
    """One way to build, read and step the environments of a task."""

    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments, as JSON can carry them, of what builds the environment."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """{observation key: what it is to be read as}, where its space alone would say otherwise."""
    image: str = "pad"
    """How images whose sides the networks cannot halve often enough are made to fit."""
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
