"""The pictures on a terminal: which it has been sent, and which it still needs."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from rich.color import Color, ColorSystem

from dreamer_async.tui.draw.kitty import MARKS, deletion, through_tmux, transmission
from dreamer_async.tui.draw.pixels import Pixels

MOST_BYTES = 15_000
"""Of all pictures of a frame together; with their text and all around them it stays below 30 kB."""
MOST_PICTURES = 3
_INKS = ((255, 0, 95), (95, 255, 0), (0, 95, 255))
"""Colours that are numbers of pictures where there are 256 of them."""


class Shown(NamedTuple):
    """A picture in its place."""

    pixels: Pixels
    """[H, W, 3]."""
    rows: int
    columns: int

    def equals(self, other: Shown | None) -> bool:
        """Whether the terminal would draw the same."""
        return (
            other is not None
            and self[1:] == other[1:]
            and np.array_equal(self.pixels, other.pixels)
        )


class Album:
    """The pictures that are shown now, and those of them that the terminal has."""

    def __init__(self, colours: str | None, *, in_tmux: bool = False) -> None:
        """`colours` as Rich names them; `usable` says whether these are enough."""
        self._colours = colours
        self._in_tmux = in_tmux
        base = (16 + os.getpid() % 0xFFE0) << 8  # other programs of the terminal have pictures, too
        self._inks = [
            Color.from_rgb(*(_INKS[n] if colours == "256" else (base + n).to_bytes(3, "big")))
            for n in range(MOST_PICTURES)
        ]
        self._wanted: dict[int, Shown] = {}
        self._there: dict[int, Shown] = {}

    @property
    def usable(self) -> bool:
        """Whether text can have a colour that is the number of a picture."""
        return self._colours in ("256", "truecolor")

    @staticmethod
    def has_room(rows: int, pictures: int) -> bool:
        """Whether so many pictures, so many rows high, can be shown side by side."""
        return rows <= len(MARKS) and pictures <= MOST_PICTURES

    def ink(self, place: int) -> Color:
        """The colour of the text that the picture with this place stands on."""
        return self._inks[place]

    def number(self, place: int) -> int:
        """What the terminal calls the picture: what it reads from that colour."""
        ink = self._inks[place]
        if self._colours == "256":
            return ink.downgrade(ColorSystem.EIGHT_BIT).number or 0
        return int.from_bytes(bytes(ink.get_truecolor()), "big")

    def show(self, pictures: list[Shown]) -> None:
        """Show these; what is not among them may stay in the terminal, where nobody sees it."""
        self._wanted = dict(enumerate(pictures))

    def news(self) -> str:
        """What the terminal has to be sent so that it has all that is shown; maybe nothing."""
        most = MOST_BYTES // max(1, len(self._wanted))
        parts = []
        for place, picture in self._wanted.items():
            if not picture.equals(self._there.get(place)):
                self._there[place] = picture
                parts.append(transmission(self.number(place), *picture, most))
        return self._passed("".join(parts))

    def clearing(self) -> str:
        """What makes the terminal forget all; it gets what is shown anew when it is asked again."""
        numbers = [self.number(place) for place in self._there]
        self._there.clear()
        return self._passed("".join(map(deletion, numbers)))

    def _passed(self, text: str) -> str:
        return through_tmux(text) if self._in_tmux else text
