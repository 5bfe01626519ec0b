"""Pictures in the graphics protocol of the terminal kitty, as the bytes that say it.

A picture is sent under a number, with a *virtual placement* of so many rows and columns. Where it
is to be seen stands text: U+10EEEE with a mark for the row, in a colour that is the number. So it
is moved, covered and erased as text is, and Textual need not know of it. Kitty and Ghostty draw
such placeholders; https://sw.kovidgoyal.net/kitty/graphics-protocol/ describes all of it.

The library for this, textual-image, asks the terminal while it is imported, which takes keys that
come meanwhile; it writes past our driver, so that neither a slow line nor leaving holds it back;
sends every frame as a PNG of as many pixels as the screen has there, under a number of its own;
and leaves what it sent behind when the program ends. So these lines are ours.
"""

from __future__ import annotations

import zlib
from base64 import standard_b64encode
from collections.abc import Iterator

import numpy as np

from dreamer_async.tui.draw.pixels import Pixels, resized

CHUNK = 4096
"""Most characters of data in one sequence."""
PLACEHOLDER = "\U0010eeee"
QUESTION_NUMBER = 31
QUESTION = f"\x1b_Gi={QUESTION_NUMBER},s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
"""Could this picture of one pixel be shown? Terminals without the protocol do not answer."""
NAME_QUESTION = "\x1b[>q"
"""XTVERSION: what the terminal is called."""
_END = "\x1b\\"
_LEVELS = (256, 32, 16)
"""Steps of each colour, fewer where a picture has to take fewer bytes."""
_CRISP = 128
"""Pixels of a side up to which a picture is enlarged here: terminals blur what they enlarge."""
_SMALLEST = 8
"""Pixels of a side below which a picture is not made smaller, whatever it takes."""
_MARKS = """
305 30d-30e 310 312 33d-33f 346 34a-34c 350-352 357 35b 363-36f 483-487 592-595 597-599 59c-5a1
5a8-5a9 5ab-5ac 5af 5c4 610-617 657-65b 65d-65e 6d6-6dc 6df-6e2 6e4 6e7-6e8 6eb-6ec 730 732-733
735-736 73a 73d 73f-741 743 745 747 749-74a 7eb-7f1 7f3 816-819 81b-823 825-827 829-82d 951 953-954
f82-f83 f86-f87 135d-135f 17dd 193a 1a17 1a75-1a7c 1b6b 1b6d-1b73 1cd0-1cd2 1cda-1cdb 1ce0 1dc0-1dc1
1dc3-1dc9 1dcb-1dcc 1dd1-1de6 1dfe 20d0-20d1 20d4-20d7 20db-20dc 20e1 20e7 20e9 20f0 2cef-2cf1
2de0-2dff a66f a67c-a67d a6f0-a6f1 a8e0-a8f1 aab0 aab2-aab3 aab7-aab8 aabe-aabf aac1 fe20-fe26
10a0f 10a38 1d185-1d189 1d1aa-1d1ad 1d242-1d244
"""
"""Combining characters that mean 0, 1, 2, ...: the protocol's rowcolumn-diacritics.txt."""


def _numbered(ranges: str) -> Iterator[str]:
    for part in ranges.split():
        first, _, last = part.partition("-")
        yield from map(chr, range(int(first, 16), int(last or first, 16) + 1))


MARKS = "".join(_numbered(_MARKS))


def placeholders(rows: int, columns: int) -> list[str]:
    """The text that a picture stands on: its rows are marked, and columns count from the left."""
    assert rows <= len(MARKS), rows
    return [PLACEHOLDER + mark + PLACEHOLDER * (columns - 1) for mark in MARKS[:rows]]


def transmission(number: int, pixels: Pixels, rows: int, columns: int, most: int) -> str:
    """Send a picture [H, W, 3] in the place of what has its number, to fill so many cells.

    Takes about `most` bytes: in fewer colours, then in fewer pixels, if that is too little.
    """
    pixels, data = _packed(_crisp(pixels), most)
    height, width, _ = pixels.shape
    head = f"a=T,U=1,q=2,i={number},f=24,o=z,s={width},v={height},c={columns},r={rows},"
    starts = range(0, len(data), CHUNK)
    return "".join(
        f"\x1b_G{head if start == 0 else 'q=2,'}m={int(start != starts[-1])};"
        f"{data[start : start + CHUNK]}{_END}"
        for start in starts
    )


def deletion(number: int) -> str:
    """Let the terminal forget a picture; also ends a transmission that was cut off."""
    return f"\x1b_Ga=d,d=I,i={number},q=2{_END}"


def through_tmux(text: str) -> str:
    """Let tmux hand sequences on to its own terminal, where `allow-passthrough` is on."""
    parts = (part + _END for part in text.split(_END)[:-1])
    return "".join(f"\x1bPtmux;{part.replace(chr(27), chr(27) * 2)}{_END}" for part in parts)


def _packed(pixels: Pixels, most: int) -> tuple[Pixels, str]:
    """The finest version that takes so many bytes, or the coarsest, and it compressed in base64."""
    found = pixels, ""
    for version in _versions(pixels):
        found = version, standard_b64encode(zlib.compress(version.tobytes())).decode()
        if len(found[1]) <= most:
            break
    return found


def _versions(pixels: Pixels) -> Iterator[Pixels]:
    """A picture in fewer and fewer colours, then in fewer pixels."""
    while True:
        for levels in _LEVELS:
            yield _with_levels(pixels, levels)
        height, width = (side // 2 for side in pixels.shape[:2])
        if min(height, width) < _SMALLEST:
            return
        pixels = resized(pixels, height, width)


def _with_levels(pixels: Pixels, levels: int) -> Pixels:
    """Round to so many steps of each colour, black and white among them."""
    if levels == 256:
        return pixels
    steps = np.rint(pixels.astype(np.float32) * ((levels - 1) / 255))
    return np.rint(steps * (255 / (levels - 1))).astype(np.uint8)


def _crisp(pixels: Pixels) -> Pixels:
    """Enlarge a small picture by a whole number, each pixel to a square."""
    factor = max(1, _CRISP // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
