"""The newest film of a run as a GIF, for trackers: real, reconstruction and dream side by side."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamer_async.run.films.video import Gif, enlarge

PERIOD_SECONDS = 600.0
"""Films come more often; a tracker keeps all that it gets."""
SIDE = 96
FPS = 8


class FilmGif:
    """Turns `pictures/film.npz` into a GIF whenever there is a newer one, but not too often."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._seen = path.stat().st_mtime_ns if path.exists() else 0
        self._next = clock()

    def __call__(self) -> tuple[bytes, int] | None:
        """The newest film and its agent step; None if there is none of images, or no pillow."""
        if self._clock() < self._next or not self._path.exists():
            return None
        if (changed := self._path.stat().st_mtime_ns) == self._seen:
            return None
        self._seen, self._next = changed, self._clock() + PERIOD_SECONDS
        with np.load(self._path, allow_pickle=False) as film:
            images = [film[key] for key in film.files if key.startswith("image/")]
            step = int(json.loads(str(film["meta"]))["env_steps"])
        if not images:
            return None
        try:
            return gif(images[0]), step
        except ImportError:
            return None


def gif(film: NDArray[np.uint8]) -> bytes:
    """[3, R, T, H, W, C] as a GIF: three columns, a row for each sequence."""
    file = io.BytesIO()
    out = Gif(file, FPS)
    for step in range(film.shape[2]):
        rows = [np.concatenate(list(film[:, row, step]), 1) for row in range(film.shape[1])]
        picture = np.concatenate(rows)
        rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
        times = -(-SIDE // film.shape[3])
        out.add(enlarge(np.ascontiguousarray(rgb), times * max(picture.shape[:2])))
    out.finish()
    return file.getvalue()
