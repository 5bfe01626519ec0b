"""Moving pictures as files: MP4 by PyAV (the extra `video`), GIF by Pillow (`pictures`).

A file takes the place of an older one when it is complete, and an error leaves none behind.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dreamer_async.store.json_file import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

Frame = NDArray[np.uint8]
"""[height, width, 3]; all frames of a file have one size."""

LONGEST_GIF = 1200
"""Frames of a GIF: all of them are in memory until it is written, and browsers play it slowly."""
FASTEST_GIF = 50
"""Frames per second; a GIF counts in hundredths of a second, and viewers slow shorter ones down."""


def enlarge(frame: Frame, least: int) -> Frame:
    """Repeat pixels a whole number of times, until the larger side has `least` pixels."""
    times = -(-least // max(frame.shape[:2]))
    return frame if times <= 1 else frame.repeat(times, 0).repeat(times, 1)


class Mp4:
    """H.264 in the colours that every player shows; odd sides lose a row or column."""

    def __init__(self, file: BinaryIO, fps: int) -> None:
        self._av: Any = importlib.import_module("av")
        self._container = self._av.open(file, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18", "preset": "medium"}
        self._began = False

    def add(self, frame: Frame) -> None:
        """Encode one more frame."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if not self._began:
            self._stream.height, self._stream.width = height, width
            self._began = True
        picture = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame[:height, :width]), format="rgb24"
        )
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Encode what is left, and write the index."""
        self._container.mux(self._stream.encode())
        self._container.close()


class Gif:
    """A GIF that repeats for ever, of at most LONGEST_GIF frames."""

    def __init__(self, file: BinaryIO, fps: int) -> None:
        self._file, self._fps = file, min(fps, FASTEST_GIF)
        self._frames: list[Frame] = []
        self.left_out = 0
        """Frames for which there was no room."""

    def add(self, frame: Frame) -> None:
        """Take one more frame."""
        if len(self._frames) < LONGEST_GIF:
            self._frames.append(frame)
        else:
            self.left_out += 1

    def finish(self) -> None:
        """Write the file, with one palette for all frames, so that colours do not flicker."""
        from PIL import Image

        palette, plain = _palette(self._frames), Image.Dither.NONE
        images = [Image.fromarray(frame) for frame in self._frames]
        first, *others = [image.quantize(palette=palette, dither=plain) for image in images]
        first.save(
            self._file,
            "GIF",
            save_all=True,
            append_images=others,
            duration=round(100 / self._fps) * 10,
            loop=0,
            optimize=False,
        )


def _palette(frames: list[Frame]) -> Image:
    """The colours of up to 32 frames, over the whole film."""
    from PIL.Image import fromarray

    some = frames[:: -(-len(frames) // 32)]
    return fromarray(np.concatenate(some)).quantize(256)


class Films:
    """The files that one film goes to."""

    def __init__(self, sinks: list[Mp4 | Gif]) -> None:
        self._sinks = sinks
        self.frames = 0
        """Frames so far."""

    def add(self, frame: Frame) -> None:
        """One more frame for all of them."""
        self.frames += 1
        for sink in self._sinks:
            sink.add(frame)

    @property
    def left_out(self) -> int:
        """Frames that the GIF had no room for."""
        return max((sink.left_out for sink in self._sinks if isinstance(sink, Gif)), default=0)


@contextmanager
def films(video: Path | None, gif: Path | None, fps: int) -> Iterator[Films]:
    """Open the files that are wanted; they are there when the block has ended without an error."""
    with ExitStack() as stack:
        kinds = ((video, Mp4), (gif, Gif))
        sinks = [kind(stack.enter_context(replacing(path)), fps) for path, kind in kinds if path]
        film = Films(sinks)
        yield film
        if film.frames:
            for sink in sinks:
                sink.finish()
