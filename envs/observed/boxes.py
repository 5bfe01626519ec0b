"""What a Box can be read as: a vector, an image, categories.

This module imports gymnasium; only modules that are themselves imported late may import it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer_async.envs import images
from dreamer_async.envs.observed.reader import (
    MOST_CLASSES,
    ObsReader,
    Path,
    UnsupportedSpace,
    name_of,
)
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.envs.view import key_of


def vector_reader(space: gymnasium.Space[Any], path: Path) -> ObsReader:
    """One flat vector of numbers."""
    shape = tuple(space.shape or ())
    size = math.prod(shape)
    if not size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    spec = ObsSpec((size,), "float32")
    return ObsReader(name_of(path, "vector"), path, spec, shape=shape)


def image_reader(space: spaces.Box, path: Path, order: str = "") -> ObsReader:
    """An image, whose size the networks may not yet take."""
    picture = images.picture_of(space, order)
    if picture is None:
        raise UnsupportedSpace(
            f"observation space {space} is no image: it needs 2 or 3 axes (4 with stacked frames; "
            "the order hwc or chw is for 3) and finite bounds, the same for all numbers"
        )
    name = name_of(path, "image")
    reader = ObsReader(name, path, ObsSpec((), "uint8"), shape=picture.shape, picture=picture)
    return of_picture(reader, picture)


def of_picture(reader: ObsReader, picture: images.Picture) -> ObsReader:
    spec = ObsSpec((*picture.sides, picture.channels), "uint8")
    return replace(reader, picture=picture, spec=spec)


def category_reader(space: spaces.Box, path: Path, count: str = "") -> ObsReader:
    """Whole numbers as categories, as many as `count` says or else the bounds of the space."""
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if not low.size:
        raise UnsupportedSpace(f"observation space {space} is empty")
    first = float(low.min()) if np.isfinite(low).all() else 0.0
    last = first + int(count) - 1 if count else float(high.max())
    key = key_of(path)
    if not (np.isfinite(last) and np.array_equal([first, last], np.rint([first, last]))):
        raise UnsupportedSpace(
            f"{key} has bounds of {first:g} to {last:g}, which give no number of categories: say "
            f"how many there are, such as --as {key}=category:11 for whole numbers from {first:g}"
        )
    if not count and _says_nothing(space):
        raise UnsupportedSpace(
            f"{key} may hold any {space.dtype}, which does not say how many categories there "
            f"are: such as --as {key}=category:11 for {first:g} to {first + 10:g}"
        )
    if last > high.max():
        most = int(high.max() - first) + 1
        raise UnsupportedSpace(f"--as {key}=category:{count} is more than its {most} numbers")
    classes = int(last - first) + 1
    if classes * low.size > MOST_CLASSES:
        raise UnsupportedSpace(
            f"{key} would be {low.size:,} categories of {classes:,}, each one input of the "
            f"networks; {MOST_CLASSES:,} in all are the most"
        )
    places = np.full(low.shape, first), np.minimum(high, last)
    spec = ObsSpec((low.size,) if low.shape else (), "int32", classes)
    name = name_of(path, "state")
    return ObsReader(name, path, spec, shape=low.shape, first=places[0], last=places[1])


def _says_nothing(space: spaces.Box) -> bool:
    """Tell whether bounds are no more than those of the type."""
    if not np.issubdtype(space.dtype, np.integer):
        return False
    info = np.iinfo(np.dtype(space.dtype).name)
    return int(np.min(space.low)) == info.min and int(np.max(space.high)) == info.max
