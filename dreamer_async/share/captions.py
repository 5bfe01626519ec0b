"""Words and curves on pictures, by Pillow (the extra `pictures`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
"""[height, width, 3]."""
Colour = tuple[int, int, int]

INK: Colour = (225, 225, 225)
DIM: Colour = (140, 140, 140)
GROUND: Colour = (18, 20, 24)
SHADE: Colour = (36, 41, 50)
"""Ground of what the model has still seen."""
LINE_HEIGHT = 16
_FONT_SIZE = 12
_FONT = ImageFont.load_default(_FONT_SIZE)


def text_width(text: str) -> int:
    """Pixels that a text takes."""
    return int(np.ceil(_FONT.getlength(text)))


def strip(texts: Sequence[tuple[int, str]], width: int, colour: Colour = INK) -> Picture:
    """One line of texts, each at its column: [LINE_HEIGHT, width, 3]."""
    image = Image.new("RGB", (width, LINE_HEIGHT), GROUND)
    draw = ImageDraw.Draw(image)
    for column, text in texts:
        draw.text((column, 1), text, colour, _FONT)
    return np.asarray(image)


def margin(texts: Sequence[tuple[int, str]], height: int) -> Picture:
    """A column of texts, each at its row and just as wide as the longest: [height, *, 3]."""
    width = max(text_width(text) for _, text in texts) + 8
    image = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(image)
    for row, text in texts:
        draw.text((4, row), text, INK, _FONT)
    return np.asarray(image)


def curves(
    series: Sequence[tuple[NDArray[np.float32], Colour]],
    now: int,
    context: int,
    size: tuple[int, int],
    least: tuple[float, float],
) -> Picture:
    """Curves [T] over time up to step `now`, on a lighter ground as far as `context` goes.

    `size` is (width, height); the axis reaches over all numbers of all curves, and over `least`.
    """
    width, height = size
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    length = len(series[0][0])
    across = [round((step + 0.5) * width / length) for step in range(length)]
    draw.rectangle((0, 0, round(context * width / length), height), SHADE)
    numbers = np.concatenate([values for values, _ in series])
    low, high = min(least[0], float(numbers.min())), max(least[1], float(numbers.max()))
    down = lambda value: round((height - 5) * (high - value) / (high - low)) + 2  # noqa: E731
    draw.line([(0, down(0.0)), (width, down(0.0))], SHADE if context < length else DIM)
    for values, colour in series:
        points = [(across[t], down(float(values[t]))) for t in range(now + 1)]
        draw.line([*points, points[-1]], colour, 2)
        x, y = points[-1]
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
    return np.asarray(image)


def beside(pictures: Sequence[Picture], gap: int) -> Picture:
    """Pictures of one height from left to right, with a gap between them."""
    space = np.full((pictures[0].shape[0], gap, 3), GROUND, np.uint8)
    parts = [part for picture in pictures for part in (space, picture)]
    return np.concatenate(parts[1:], 1)


def below(pictures: Sequence[Picture]) -> Picture:
    """Pictures under each other; narrower ones are filled up on the right."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_widened(picture, width) for picture in pictures])


def _widened(picture: Picture, width: int) -> Picture:
    more = np.full((picture.shape[0], width - picture.shape[1], 3), GROUND, np.uint8)
    return np.concatenate([picture, more], 1)
