"""The dashboard of a finished run as a moving picture: `python -m dreamer_async.tui.moving`.

The events of the run are given to a dashboard piece by piece, as if it had been watched while it
trained, and what it shows becomes the frames of a GIF: the returns growing, then the other pages.
`--page NAME` writes one page as it stood at the end, as a PNG. The run itself is only read.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from textual.color import Color
from textual.pilot import Pilot

from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.pages import NAMES
from dreamer_async.tui.raster import Pixels, raster

SIZE = (104, 34)
"""Columns and rows."""
GROWING, GROWING_MS = 60, 130
"""Frames of the overview while the run goes on, and how long each is shown."""
END_MS, PAGE_MS, FILM_MS = 2000, 2200, 220
"""How long the end of the run, a page that stands still, and a frame of the film are shown."""
SEQUENCES = 2
"""Of the film."""
COLOURS = 64
"""Of the whole GIF: the themes use few, and fewer make smaller files."""


class Frame(NamedTuple):
    """What is shown, and for how long."""

    pixels: Pixels
    """[H, W, 3]."""
    ms: int


class Replayed:
    """A run that is written again, event after event, into a directory of its own."""

    def __init__(self, run: RunDir, folder: Path, pieces: int) -> None:
        """The events are given out in `pieces` that are as long as each other in updates."""
        self.run = RunDir(folder / run.name)
        self.run.control.mkdir(parents=True)
        for path in (run.config_path, run.pictures):
            if path.is_dir():
                shutil.copytree(path, self.run.path / path.name)
            elif path.is_file():
                shutil.copy(path, self.run.path / path.name)
        self._lines = run.events_path.read_bytes().splitlines(keepends=True)
        times = np.array([_time(line) for line in self._lines])
        self._times = np.maximum.accumulate(times)
        self._ends = _even(self._lines, pieces)
        self.now = float(self._times[0])
        """Unix seconds at which the newest event happened."""

    def write(self, file: BinaryIO, piece: int) -> None:
        """Write the events of a piece."""
        first = self._ends[piece - 1] if piece else 0
        last = self._ends[piece]
        file.write(b"".join(self._lines[first:last]))
        file.flush()
        self.now = float(self._times[last - 1])

    @property
    def pieces(self) -> int:
        """How many there are."""
        return len(self._ends)


def _time(line: bytes) -> float:
    """Unix seconds of an event, 0 where they cannot be read."""
    _, found, rest = line.partition(b'"time":')
    try:
        return float(rest[: rest.index(b",")]) if found else 0.0
    except ValueError:
        return 0.0


def _even(lines: Sequence[bytes], pieces: int) -> list[int]:
    """Ends of pieces of a stream with about as many updates each; the last is the end of it."""
    updates = [number for number, line in enumerate(lines, 1) if b'"type":"metrics"' in line]
    places = np.linspace(0, len(updates) - 1, pieces).astype(int) if updates else []
    return sorted({*(updates[place] for place in places), len(lines)})


async def frames(run: RunDir, size: tuple[int, int]) -> AsyncIterator[Frame]:
    """The run on the first page, then the other pages at its end."""
    with TemporaryDirectory() as folder, ExitStack() as lock:
        again = Replayed(run, Path(folder), GROWING)
        file = lock.enter_context(again.run.events_path.open("ab"))
        held = lock.enter_context(ExitStack())
        held.enter_context(again.run.lock())
        again.write(file, 0)
        app = Dashboard(again.run.path, clock=lambda: again.now, animate=False)
        async with app.run_test(size=size) as pilot:
            for piece in range(again.pieces):
                if piece:
                    again.write(file, piece)
                if piece == again.pieces - 1:
                    held.close()  # nobody trains any more
                last = piece == again.pieces - 1
                yield Frame(await shown(pilot), END_MS if last else GROWING_MS)
            for page in ("losses", "pipeline"):
                await app.main.action_page(page)
                yield Frame(await shown(pilot), PAGE_MS)
            await app.main.action_page("world")
            async for frame in _film(pilot):
                yield frame


async def _film(pilot: Pilot[int]) -> AsyncIterator[Frame]:
    """The page of the world model: some sequences of images, or what does not move as it is."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    await shown(pilot)
    film = app.source.film.film
    if film is None or not film.shots()[0].is_image:
        yield Frame(await shown(pilot), PAGE_MS)
        return
    for _ in range(SEQUENCES):
        for _ in range(film.length):
            yield Frame(await shown(pilot), FILM_MS)
            app.main.page.advance()
        await app.main.action_source()


async def shown(pilot: Pilot[int]) -> Pixels:
    """What the dashboard shows of all that was written so far: [H, W, 3]."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    while not (app.main.ready and app.source.caught_up):
        await pilot.pause()
    while app.read_piece():
        pass
    app.check_trainer()
    app.check_trainer()
    await pilot.pause()
    app.show_now()
    await pilot.pause()
    while app.main.turning:
        await pilot.pause()
    ground = Color.parse(app.theme_variables["background"])
    return raster(app.screen._compositor.render_strips(), (ground.r, ground.g, ground.b))


def as_gif(shots: Sequence[Frame], path: Path) -> None:
    """Write frames with one palette, so that what stays the same is stored once."""
    palette = _palette([shot.pixels for shot in shots])
    images = [
        Image.fromarray(shot.pixels).quantize(palette=palette, dither=Image.Dither.NONE)
        for shot in shots
    ]
    durations = [shot.ms for shot in shots]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        optimize=False,
        disposal=1,
    )


def _palette(pictures: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Colours of some of the frames, the last ones among them."""
    some = pictures[:: max(1, len(pictures) // 8)]
    return Image.fromarray(np.concatenate([*some, pictures[-1]])).quantize(COLOURS)


async def page_of(run: RunDir, page: str, size: tuple[int, int]) -> Pixels:
    """A page of the dashboard at the end of a run: [H, W, 3]."""
    app = Dashboard(run.path, clock=lambda: _time(_last_line(run)), animate=False)
    async with app.run_test(size=size) as pilot:
        await shown(pilot)
        await app.main.action_page(page)
        return await shown(pilot)


def _last_line(run: RunDir) -> bytes:
    return run.events_path.read_bytes().splitlines()[-1]


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    return int(columns), int(rows)


async def _all(run: RunDir, size: tuple[int, int]) -> list[Frame]:
    return [frame async for frame in frames(run, size)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(prog="python -m dreamer_async.tui.moving", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("file", type=Path, help="a GIF, or with --page a PNG")
    parser.add_argument("--page", choices=NAMES, help="this page alone, at the end of the run")
    parser.add_argument("--size", type=_size, default=SIZE, help="columns and rows, as 104x34")
    options = parser.parse_args(arguments)
    run = RunDir(options.run_dir.absolute())
    if options.page:
        picture = asyncio.run(page_of(run, options.page, options.size))
        Image.fromarray(picture).quantize(COLOURS, dither=Image.Dither.NONE).save(options.file)
        return
    as_gif(asyncio.run(_all(run, options.size)), options.file)


if __name__ == "__main__":
    main()
