"""A film of a dream: real, reconstructed and dreamed images beside each other, as GIF or MP4.

Below the images of each sequence stand the rewards and the probabilities of going on: those that
came, and those that the dream expected, as curves up to the moment that is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dreamer_async.run.films.video import enlarge, films
from dreamer_async.share import captions
from dreamer_async.share.captions import Picture
from dreamer_async.share.dream import NAMES, Dreams, Expected, dreams, load
from dreamer_async.share.reel import coloured
from dreamer_async.store.run_dir import RunDir

SIDE = 128
"""Images are enlarged until their larger side has at least as many pixels."""
GAP = 6
HEIGHT = 44
"""Pixels of one plot."""
HELD = 6
"""How often the last frame is repeated, so that the eye finds the beginning."""
REAL: captions.Colour = (150, 150, 150)
DREAM: captions.Colour = (255, 170, 60)


def film(
    run_dir: RunDir,
    gif: Path | None,
    video: Path | None = None,
    *,
    rows: int = 3,
    context: int = 5,
    seed: int = 0,
    fps: int = 6,
) -> tuple[str, ...]:
    """Write the film of a run's newest valid checkpoint; returns why newer ones were skipped.

    Raises NothingToSee and CheckpointError.
    """
    found = load(run_dir)
    result = dreams(run_dir, found, rows, context, seed)
    with films(video, gif, fps) as out:
        shown = list(frames(result))
        for frame in (*shown, *[shown[-1]] * HELD):
            out.add(frame)
    return found.skipped


def frames(result: Dreams) -> Iterator[Picture]:
    """One picture for every step."""
    rows, length = result.reward.real.shape
    for now in range(length):
        parts = [_heading(result, now)]
        for row in range(rows):
            panels = [_panels(result, key, row, now) for key in result.images]
            parts += [*panels, *_plots(result, row, now, panels[0].shape[1])]
        yield captions.below(parts)


def _heading(result: Dreams, now: int) -> Picture:
    """What the three panels are, and how much the dream has seen."""
    width = _width(result)
    dreaming = now >= result.context
    names = (*NAMES[:2], f"{NAMES[2]}, step {now - result.context + 1}" if dreaming else "watching")
    texts = [(i * (width + GAP) + 2, name) for i, name in enumerate(names)]
    return captions.strip(texts, 3 * width + 2 * GAP)


def _width(result: Dreams) -> int:
    first = next(iter(result.images.values())).real
    height, width = first.shape[2:4]
    return width * max(1, -(-SIDE // max(height, width)))


def _panels(result: Dreams, key: str, row: int, now: int) -> Picture:
    versions = (part[row, now].numpy() for part in result.images[key])
    return captions.beside([enlarge(coloured(_bytes(version)), SIDE) for version in versions], GAP)


def _bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(255 * image.clip(0, 1)).astype(np.uint8)


def _plots(result: Dreams, row: int, now: int, width: int) -> list[Picture]:
    """Reward and continue of one sequence: a line of numbers and a plot each."""
    parts: list[Picture] = []
    for name, expected in (("reward", result.reward), ("continue", result.cont)):
        real, _, dreamed = (part[row].numpy() for part in expected)
        parts.append(_numbers(name, real[now], dreamed[now], width))
        curves = [(real, REAL), (dreamed, DREAM)]
        parts.append(
            captions.curves(curves, now, result.context, (width, HEIGHT), _range(expected))
        )
    return [*parts, captions.strip([], width)]


def _numbers(name: str, real: float, dreamed: float, width: int) -> Picture:
    """`reward  real 0.00  dream 0.03`, in the colours of the curves."""
    first = f"{name}   real {real:z.2f}"
    line = captions.strip([(2, first)], width, REAL)
    at = captions.text_width(first) + 16
    line = line.copy()
    line[:, at:] = captions.strip([(0, f"dream {dreamed:z.2f}")], width - at, DREAM)
    return line


def _range(expected: Expected) -> tuple[float, float]:
    """The axis that all sequences share: from the least to the largest, at least 0 to 0.1."""
    numbers = [part.numpy() for part in (expected.real, expected.prediction)]
    low, high = min(float(x.min()) for x in numbers), max(float(x.max()) for x in numbers)
    return min(0.0, low), max(0.1, high)
