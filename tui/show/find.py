"""Finding words in lines of text, and breaking lines where they end: pure functions."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len


class Span(NamedTuple):
    """A part of a line."""

    line: int
    """Number of the line, from 0."""
    start: int
    stop: int


def occurrences(text: str, words: str) -> list[tuple[int, int]]:
    """Where words stand in a text, without overlaps; nothing for no words.

    Capitals among the words match capitals only; without one, case does not matter.
    """
    if not words:
        return []
    if words == words.lower():
        folded = text.lower()
        text = folded if len(folded) == len(text) else text  # some letters become two
    found, start = [], text.find(words)
    while start >= 0:
        found.append((start, start + len(words)))
        start = text.find(words, start + len(words))
    return found


def broken(text: str, width: int) -> list[tuple[int, int]]:
    """Break a line into pieces of at most `width` columns, behind spaces where there are some.

    Together the pieces are the whole text; a space at the end of one may stand out. An empty text
    is one piece.
    """
    pieces, start = [], 0
    while start < len(text):
        stop = _reach(text, start, width)
        space = text.rfind(" ", start, stop + 1) + 1
        if stop < len(text) and space > start:
            stop = space
        pieces.append((start, stop))
        start = stop
    return pieces or [(0, 0)]


def _reach(text: str, start: int, width: int) -> int:
    """The end of what fits into so many columns from a place on; at least one character."""
    taken, stop = 0, start
    while stop < len(text):
        taken += cell_len(text[stop])
        if taken > width and stop > start:
            break
        stop += 1
    return stop
