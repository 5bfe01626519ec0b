"""Boxes that are pictures: how to tell, and how they become what the networks take.

The networks halve an image four times, so that 16 must divide both sides, and all images of a task
must have one size. Pictures of any size are made so: with a black margin around them, or scaled.

Legend: N rows of one batch, K frames of a stack, h x w a picture of the environment, H x W the
image that the agent sees, C its channels, those of all frames together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.findings import FEW_VALUES
from dreamer_async.envs.spec import STAGES, Taken

Array = NDArray[Any]
Bytes = NDArray[np.uint8]

MULTIPLE = 2**STAGES
"""What both sides of an image must be multiples of."""
LEAST_SIDE = 16
"""Both sides of a picture are at least so long."""
LEAST_MATRIX = 32
"""And those of one without an axis of channels that holds neither bytes nor booleans: tables of
numbers in [0, 1] are as usual, and would lose precision as bytes."""
FEW_CHANNELS = 4
"""A last axis up to this is one of channels, whatever the first one is."""
LARGE = 128 * 128
"""Pixels from which on it is worth a word what they cost."""
USUAL = 64 * 64
"""Pixels that costs are compared with."""
SLACK = 1e-4
"""Share of the range by which reals may miss it, from rounding."""

_ORDERS = {"hw": (0, 1), "hwc": (0, 1, 2), "chw": (1, 2, 0), "khwc": (1, 2, 0, 3)} | {
    "kchw": (2, 3, 0, 1)
}
"""Order of axes -> where height, width and what makes up the channels are in it."""
_RANGES = ((0.0, 1.0), (0.0, 255.0))
"""Bounds that say that numbers are brightness."""


@dataclass(frozen=True)
class Picture:
    """How pictures of one key become images."""

    shape: tuple[int, ...]
    """Of one picture on the environment's side."""
    order: str
    """Its axes: hw, hwc, chw, khwc or kchw."""
    dtype: str
    """Its type there."""
    low: float
    """What is black."""
    high: float
    """What is white."""
    largest: float
    """The largest number that its space allows."""
    sides: tuple[int, int] = (0, 0)
    """H, W; 0, 0 until it is known."""
    scaled: bool = False
    """It is scaled to them, not padded."""

    @property
    def size(self) -> tuple[int, int]:
        """h, w."""
        height, width = _ORDERS[self.order][:2]
        return self.shape[height], self.shape[width]

    @property
    def channels(self) -> int:
        return math.prod(self.shape) // max(1, math.prod(self.size))

    @property
    def plain(self) -> bool:
        """Its numbers are bytes of brightness already."""
        return self.dtype == "uint8" and self.high == 255

    def fault(self, value: Array) -> str:
        """What is wrong with one picture, empty if nothing is."""
        if self.plain:
            return "" if value.dtype == np.uint8 else f"is {value.dtype}, but its space says uint8"
        least, most = float(value.min()), float(value.max())
        slack = SLACK * (self.high - self.low)
        if self.low - slack <= least and most <= self.high + slack:
            return ""
        return f"reaches {least:g} to {most:g}, but its space says {self.low:g} to {self.high:g}"

    def convert(self, value: Array) -> Bytes:
        """Convert valid pictures: [N, *shape] to [N, H, W, C]."""
        height, width, *channels = (axis + 1 for axis in _ORDERS[self.order])
        value = self._bytes(value).transpose(0, height, width, *channels)
        value = value.reshape(len(value), *self.size, self.channels)
        if self.sides == self.size:
            return np.ascontiguousarray(value)
        return resize(value, *self.sides) if self.scaled else pad(value, *self.sides)

    def _bytes(self, value: Array) -> Bytes:
        if value.dtype == np.uint8 and self.plain:
            return value
        if value.dtype == np.bool_ and (self.low, self.high) == (0, 1):
            return value.view(np.uint8) * np.uint8(255)
        real = value.astype(np.float64 if value.dtype.itemsize > 4 else np.float32)
        real = (real - self.low) * (255 / (self.high - self.low))
        return np.rint(np.clip(real, 0, 255)).astype(np.uint8)

    def taken(self, key: str, *, chosen: bool) -> Taken:
        """What the key was taken for; what the user said needs no doubt, but it costs the same."""
        doubts = [] if chosen else [self._symbols(key), self._numbers(key)]
        return Taken(
            key, self._words(), chosen, "; ".join(filter(None, [*doubts, self._cost(key)]))
        )

    def _words(self) -> str:
        order = f" with the axes {' '.join(self.order)}" if self.order not in ("hw", "hwc") else ""
        of = "" if self.plain else f" of {self.dtype} in [{self.low:g}, {self.high:g}]"
        how = "scaled" if self.scaled else "padded with black"
        done = f", {how} to {_by(self.sides)}" if self.sides != self.size else ""
        return f"an image of {_by((*self.size, self.channels))}{order}{of}{done}"

    def _symbols(self, key: str) -> str:
        """Doubt that whole numbers are brightness, by what their space says."""
        if not (np.dtype(self.dtype).kind in "iu" and 1 < self.largest < FEW_VALUES):
            return ""
        return (
            f"{key} is taken for an image, but its numbers end at {self.largest:g}: if they are "
            f"symbols, such as kinds of tiles, --as {key}=category makes categories of them "
            f"(--as {key}=image if not)"
        )

    def _numbers(self, key: str) -> str:
        """Say that reals become bytes."""
        if np.dtype(self.dtype).kind != "f":
            return ""
        return (
            f"{key} is taken for an image, so that its {self.dtype} become bytes: if it is none, "
            f"--as {key}=vector (--as {key}=image if it is)"
        )

    def _cost(self, key: str) -> str:
        """What a large image costs."""
        pixels = math.prod(self.sides)
        if pixels <= LARGE:
            return ""
        gigabytes = pixels * self.channels * 1e6 / 1e9
        return (
            f"{key} has {_by(self.sides)} pixels, {pixels / USUAL:.1f} times those of 64x64, "
            f"and so much longer an update takes, and a million steps fill {gigabytes:,.0f} GB: "
            f"-s env.image=resize:{_smaller(self.sides)} scales it"
        )


def picture_of(space: spaces.Box, order: str = "") -> Picture | None:
    """Take a Box for a picture, in this order of the axes if there is one; None if it is none.

    It has no axes like a picture's, or no finite bounds that are the same for all numbers.
    """
    shape = tuple(space.shape)
    order = _order(shape, order)
    bounds = _bounds(space)
    if order not in _ORDERS or not math.prod(shape) or bounds is None:
        return None
    largest = float(np.max(space.high))
    return Picture(shape, order, np.dtype(space.dtype).name, *bounds, largest)


def is_picture(space: spaces.Box) -> bool:
    """Tell whether a Box is a picture by what its space says: see docs/environments.md."""
    picture = picture_of(space)
    if picture is None:
        return False
    bytes_or_bits = picture.dtype in ("uint8", "bool")
    least = LEAST_MATRIX if picture.order == "hw" and not bytes_or_bits else LEAST_SIDE
    bright = bytes_or_bits or (picture.low, picture.high) in _RANGES
    return bright and min(picture.size) >= least


def _order(shape: tuple[int, ...], given: str) -> str:
    """Order of the axes; `given` is empty or that of the last three."""
    if len(shape) == 4:
        return "k" + _order(shape[1:], given)
    if len(shape) != 3:
        return "hw" if len(shape) == 2 and not given else "unknown"
    first, middle, last = shape
    return given or ("chw" if last > FEW_CHANNELS and first < min(middle, last) else "hwc")


def _bounds(space: spaces.Box) -> tuple[float, float] | None:
    """What is black and what is white; None where the space does not say it.

    Bytes are brightness whatever their bounds, which are often only what a game's colours reach;
    but those of 0 and 1 would be all black, and are black and white as booleans are.
    """
    if space.dtype == np.uint8:
        return 0.0, 1.0 if (space.high == 1).all() and (space.low == 0).all() else 255.0
    if space.dtype == np.bool_:
        return 0.0, 1.0
    low, high = np.unique(space.low), np.unique(space.high)
    if len(low) != 1 or len(high) != 1 or not np.isfinite([low[0], high[0]]).all():
        return None
    return (float(low[0]), float(high[0])) if low[0] < high[0] else None


def fit(pictures: Iterable[Picture], how: str) -> list[Picture]:
    """Give pictures of any sizes one that the networks take.

    `how` is pad, resize, resize:SIDE or resize:HEIGHTxWIDTH. Padded are all to the largest, resized
    to the largest that fits into it unless it is said.
    """
    pictures = list(pictures)
    name, _, given = how.partition(":")
    if given:
        height, _, width = given.partition("x")
        sides = int(height), int(width or height)
    else:
        largest = [max(side) for side in zip(*(each.size for each in pictures), strict=True)]
        step = _below if name == "resize" else _above
        sides = (step(largest[0]), step(largest[1])) if largest else (0, 0)
    assert name in ("pad", "resize"), how
    return [replace(each, sides=sides, scaled=name == "resize") for each in pictures]


def _above(side: int) -> int:
    return -(-side // MULTIPLE) * MULTIPLE


def _below(side: int) -> int:
    return max(MULTIPLE, side // MULTIPLE * MULTIPLE)


def _smaller(sides: tuple[int, int]) -> str:
    """A size of about as many pixels as usual, of the same proportions."""
    factor = math.sqrt(USUAL / math.prod(sides))
    height, width = (max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in sides)
    return f"{height}" if height == width else f"{height}x{width}"


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def pad(value: Bytes, height: int, width: int) -> Bytes:
    """Put images in the middle of black ones, where a line is left over nearer to the top left."""
    rows, given_height, given_width, channels = value.shape
    assert given_height <= height and given_width <= width, (value.shape, height, width)
    top, left = (height - given_height) // 2, (width - given_width) // 2
    padded = np.zeros((rows, height, width, channels), np.uint8)
    padded[:, top : top + given_height, left : left + given_width] = value
    return padded


def resize(value: Bytes, height: int, width: int) -> Bytes:
    """Scale images by the mean over the area of each new pixel, halves rounded up.

    [N, h, w, C] to [N, H, W, C]; exact, as all sums are of whole numbers.
    """
    rows, given_height, given_width, channels = value.shape
    lines = _sums(value.reshape(rows, given_height, -1), height, 255)
    lines = lines.reshape(rows * height, given_width, channels)
    total = _sums(lines, width, 255 * given_height)
    area = given_height * given_width
    mean = (2 * total.astype(np.int64) + area) // (2 * area)
    return mean.astype(np.uint8).reshape(rows, height, width, channels)


def _sums(value: Array, wanted: int, most: int) -> Array:
    """Sums over the second axis in parts of equal length: whole numbers [A, given, B] of up to
    `most` to [A, wanted, B], where each old number counts `wanted` times in all."""
    many, given, rest = value.shape
    kind = np.int32 if most * given < 2**31 else np.int64
    total = np.zeros((many, wanted, rest), kind)
    for place, weight in _taps(given, wanted):
        total += np.multiply(value[:, place], weight.astype(kind)[:, None], dtype=kind)
    return total


@lru_cache(maxsize=64)
def _taps(given: int, wanted: int) -> list[tuple[Array, Array]]:
    """First, second, ... old number of every part, and how much of it lies in that part.

    An old number is `wanted` long and a part `given`, so that both rows are equally long.
    """
    start = np.arange(wanted) * given
    taps = []
    for place in range(-(-given // wanted) + 1):
        old = start // wanted + place
        shared = np.minimum((old + 1) * wanted, start + given) - np.maximum(old * wanted, start)
        taps.append((np.minimum(old, given - 1), np.where(old < given, shared, 0).clip(0)))
    return taps
