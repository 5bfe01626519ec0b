"""Which terminals get pictures of pixels.

auto     the terminal is asked; until it has answered, and where it does not, there are half blocks
kitty    it is not asked; inside tmux, tmux is told to hand the pictures on
blocks   half blocks everywhere
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Literal, cast, get_args

Choice = Literal["auto", "kitty", "blocks"]
CHOICES: tuple[str, ...] = get_args(Choice)

DRAW_PLACEHOLDERS = ("kitty", "ghostty")
"""How the terminals call themselves whose pictures can stand on text."""
_MUTE = ("dumb", "linux")
"""Values of TERM of terminals that would show a question as text."""


class Way(Enum):
    """What is done about pictures."""

    BLOCKS = "none are sent"
    ASK = "the terminal is asked"
    SEND = "they are sent"
    THROUGH_TMUX = "they are sent through tmux"


def way(choice: Choice, environment: Mapping[str, str] = os.environ, *, ascii: bool = False) -> Way:
    """What the terminal that is described there gets; raises ValueError if that cannot be."""
    in_tmux = "TMUX" in environment
    in_screen = "STY" in environment and not in_tmux
    if choice == "blocks":
        return Way.BLOCKS
    if choice == "kitty" and in_screen:
        raise ValueError("screen does not hand pictures on: --graphics blocks")
    if ascii or environment.get("NO_COLOR"):
        return Way.BLOCKS  # the colour of text says which picture stands on it
    if choice == "kitty":
        return Way.THROUGH_TMUX if in_tmux else Way.SEND
    mute = (
        environment.get("TERM", "dumb") in _MUTE
        or environment.get("TERM_PROGRAM") == "Apple_Terminal"
    )
    return Way.BLOCKS if in_tmux or in_screen or mute else Way.ASK


def chosen(text: str) -> Choice:
    """The choice that a text says; raises ValueError if it is none."""
    if text not in CHOICES:
        raise ValueError(f"there is no --graphics {text!a}; there are {', '.join(CHOICES)}")
    return cast(Choice, text)
