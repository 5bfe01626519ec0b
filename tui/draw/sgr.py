"""Frames in fewer bytes: a style is written where it changes, and not for every piece of text.

Textual writes each piece with both of its colours in full and a reset behind it, which is five
times the text itself. SGR ("select graphic rendition") are the sequences `ESC [ ... m`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TOKENS = re.compile(r"\x1b\[([\d;]*)m|(\x1b\[[\d;?$>=<]*[A-Za-ln-z]|\n)|([^\x1b\n]+|\x1b)")
"""A style; something that moves the cursor and shows nothing; text."""
_COLOURS = {"38": 0, "48": 1}
_LENGTHS = {"2": 5, "5": 3}
"""Numbers of a colour with its own: 38;2;red;green;blue and 38;5;index."""


_UPPER, _LOWER = "▀", "▄"
"""Half blocks: pictures come as upper ones, two pixels a cell."""


class _Style(NamedTuple):
    """How a terminal writes; every part as the numbers that set it, empty for none."""

    front: str = ""
    back: str = ""
    attributes: frozenset[str] = frozenset()
    """Such as 1 for bold."""


_PLAIN = _Style()
_ON_BLANKS = frozenset({"4", "7", "9", "21", "53"})
"""Attributes that can be seen on a space: lines below, through and above it, and reversed."""


def lean(frame: str) -> str:
    """Write a frame that begins and ends without a style with as few style changes as it needs."""
    parts: list[str] = []
    now = wanted = _PLAIN
    for match in _TOKENS.finditer(frame):
        numbers, moves, text = match.groups()
        if numbers is not None:
            wanted = _set(wanted, numbers)
            continue
        if text is not None:
            text, target = _cheapest(text, wanted, now)
            parts.append(_change(now, target))
            now = target
        parts.append(moves or text or "")
    parts.append(_change(now, wanted))
    return "".join(parts)


def _cheapest(text: str, wanted: _Style, now: _Style) -> tuple[str, _Style]:
    """What looks like a text in a style and takes the fewest bytes after another style.

    Half blocks of two equal colours are blanks, and others may stand on their heads.
    """
    if not text.strip(_UPPER) and (turned := _turned(wanted)) is not None:
        if turned[0][2:] == wanted.front[2:]:
            text = " " * len(text)
        elif len(_change(now, turned)) < len(_change(now, wanted)):
            return _LOWER * len(text), turned
    if text.isspace() and not _ON_BLANKS & (wanted.attributes | now.attributes):
        return text, _Style(now.front, wanted.back, now.attributes)
    return text, wanted


def _turned(style: _Style) -> _Style | None:
    """The style with its colours exchanged; None where they have no numbers, or do not stay."""
    front, back = style.front, style.back
    if style.attributes or not (front.startswith("38;") and back.startswith("48;")):
        return None
    return _Style(f"38{back[2:]}", f"48{front[2:]}")


@lru_cache(maxsize=4096)
def _set(style: _Style, numbers: str) -> _Style:
    """The style after a sequence with these numbers."""
    left = numbers.split(";")
    while left:
        code = left[0]
        if code in ("", "0"):
            style, size = _PLAIN, 1
        elif code in _COLOURS:
            size = _LENGTHS.get(left[1] if len(left) > 1 else "", len(left))
            colour = ";".join(left[:size])
            style = style._replace(**{_Style._fields[_COLOURS[code]]: colour})
        elif 30 <= int(code) <= 39 or 90 <= int(code) <= 97:
            style, size = style._replace(front="" if code == "39" else code), 1
        elif 40 <= int(code) <= 49 or 100 <= int(code) <= 107:
            style, size = style._replace(back="" if code == "49" else code), 1
        else:
            style, size = style._replace(attributes=style.attributes | {code}), 1
        left = left[size:]
    return style


@lru_cache(maxsize=4096)
def _change(now: _Style, target: _Style) -> str:
    """What turns one style into another; empty if they are the same."""
    if now == target:
        return ""
    if target == _PLAIN:
        return "\x1b[m"
    codes = []
    if now.attributes - target.attributes:
        codes, now = ["0"], _PLAIN
    codes += sorted(target.attributes - now.attributes)
    if target.front != now.front:
        codes.append(target.front or "39")
    if target.back != now.back:
        codes.append(target.back or "49")
    return f"\x1b[{';'.join(codes)}m"
