"""A terminal at the end of a slow line: small frames that show the same, and leaving at once."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyte
import pytest
from rich.console import Console
from textual.app import App
from textual.pilot import Pilot

from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import DETACHED, Dashboard
from dreamer_async.tui.draw.sgr import lean
from dreamer_async.tui.driver import PIECE, Outlet
from dreamer_async.tui.pages import NAMES
from tests.tui.test_app import NOW, driven, trainer
from tests.tui.test_process import terminal
from tests.tui.test_screens import film, made, read_all, shown

MOST_BYTES = 30_000
"""Of a frame: four seconds over 8 kB/s."""
WIDTH, HEIGHT = 120, 40
RECORDED = Path(__file__).parents[1] / "data" / "tui" / "catch.jsonl"
COLOURS = re.compile(r"38;2;\d+;\d+;\d+;48;2;")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = made(tmp_path / "20261122-222755-toy-catch", RECORDED.read_bytes(), lr=4e-5)
    film(run.film_path)
    return run


def frame(pilot: Pilot[int]) -> str:
    """All of the screen as Textual writes it to a terminal with 16 million colours."""
    update = pilot.app.screen._compositor.render_update(full=True)
    console = Console(color_system="truecolor", force_terminal=True, legacy_windows=False)
    return update.render_segments(console)  # type: ignore[union-attr]


def seen(written: str, before: str = "") -> list[list[tuple[object, ...]]]:
    """What a terminal shows: character, colours and attributes of each cell.

    The colour of the text and boldness are not seen on a blank. A half block and its colours may
    be the other one with these exchanged, or a blank where they are equal.
    """
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.Stream(screen)
    stream.feed(before + written)
    rows = [[screen.buffer[y][x] for x in range(WIDTH)] for y in range(HEIGHT)]
    blank = [[c.data == " " and not (c.reverse or c.underscore) for c in row] for row in rows]
    return [
        [halves(c) or ((c.bg, c.bg) if b else tuple(c)) for c, b in zip(row, blanks, strict=True)]
        for row, blanks in zip(rows, blank, strict=True)
    ]


def halves(cell: pyte.screens.Char) -> tuple[object, ...]:
    """The colours above and below in a cell of half blocks; empty for another one."""
    return {"▀": (cell.fg, cell.bg), "▄": (cell.bg, cell.fg)}.get(cell.data, ())


@driven
async def test_every_page_is_a_small_frame_that_shows_the_same(run: RunDir) -> None:
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await read_all(pilot)
        app.overlay(run.path.parent)  # any other directory: the page `compare` is there
        for number, name in enumerate(NAMES, start=1):
            await pilot.press(str(number))
            await shown(pilot)
            full = frame(pilot)
            small = lean(full)
            assert len(COLOURS.findall(full)) > 40, "both colours of every piece"
            assert len(small.encode()) < min(MOST_BYTES, 0.8 * len(full.encode())), name
            if name in ("overview", "world"):  # a terminal in Python takes its time
                assert seen(small) == seen(full), name


@driven
async def test_a_page_is_painted_once(run: RunDir) -> None:
    """Turning to it sends one frame, also where charts have to be mounted and laid out first."""
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await read_all(pilot)
        app.overlay(run.path.parent)
        await shown(pilot)
        for turn in ("234", "12"):  # mounted, and then as they are
            for key in turn:
                sizes = [len(lean(f)) for f in await frames_of(app, pilot.press(key))]
                assert sizes and sum(sizes) < 1.3 * max(sizes), (key, sizes)
                assert sum(sizes) < MOST_BYTES, (key, sizes)


@driven
async def test_a_second_paint_would_be_seen(run: RunDir) -> None:
    async def twice(pilot: Pilot[int]) -> None:
        await pilot.press("3")
        await pilot.pause(0.1)
        pilot.app.screen.refresh()

    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await read_all(pilot)
        sizes = [len(lean(frame)) for frame in await frames_of(app, twice(pilot))]
        assert sum(sizes) > 1.3 * max(sizes)


async def frames_of(app: App[Any], doing: Awaitable[object]) -> list[str]:
    """What Textual would write to a terminal while something is done, and a moment after it."""
    frames: list[str] = []
    console = Console(color_system="truecolor", force_terminal=True, legacy_windows=False)

    def noted(screen: object, update: Any) -> None:
        if update is not None and not app._batch_count:
            frames.append(update.render_segments(console))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "_display", noted)
        await doing
        await asyncio.sleep(0.3)
    return frames


STYLED = "\x1b[1;31;48;2;1;2;3mab\x1b[0m\x1b[31;48;2;1;2;3mc\x1b[0m\x1b[4m \x1b[0m\n\x1b[2;3Hd"


def test_styles_are_written_where_they_change() -> None:
    small = lean(STYLED)
    assert seen(small) == seen(STYLED)
    assert small == (
        "\x1b[1;31;48;2;1;2;3mab\x1b[0;31;48;2;1;2;3mc\x1b[4;39;49m \n\x1b[2;3H\x1b[md"
    )


@pytest.mark.parametrize(
    "styled",
    [
        "\x1b[31ma\x1b[0m\x1b[32m  \x1b[0m\x1b[31mb\x1b[0m",
        "\x1b[38;5;9;48;5;10ma\x1b[0m \x1b[7m \x1b[0mb",
        "\x1b[91;104ma\x1b[39;49mb\x1b[0m",
        "\x1b[?2026h\x1b[1mx\x1b[0m\x1b[?2026l",
        "plain",
        "",
    ],
)
def test_any_style_is_kept(styled: str) -> None:
    assert seen(lean(styled)) == seen(styled)
    assert seen("b" + lean(styled)) != seen("a" + styled), "what differs is seen"


def test_a_colour_that_blanks_do_not_show_is_not_written() -> None:
    assert lean("\x1b[31ma\x1b[0m\x1b[32m  \x1b[0m\x1b[31mb\x1b[0m") == "\x1b[31ma  b\x1b[m"


RED, BLUE, GREEN = "2;255;0;0", "2;0;0;255", "2;0;255;0"


def cell(above: str, below: str) -> str:
    """As Textual writes a half block."""
    return f"\x1b[38;{above};48;{below}m▀\x1b[0m"


def test_two_pixels_of_one_colour_are_a_blank() -> None:
    picture = cell(RED, BLUE) + cell(RED, RED) + cell(GREEN, GREEN) + cell(RED, GREEN)
    small = lean(picture)
    assert small == f"\x1b[38;{RED};48;{BLUE}m▀\x1b[48;{RED}m \x1b[48;{GREEN}m ▀\x1b[m"
    assert seen(small) == seen(picture)


def test_a_half_block_stands_on_its_head_where_that_takes_fewer_bytes() -> None:
    picture = cell(RED, BLUE) + cell(BLUE, RED) + cell(GREEN, RED) + cell(BLUE, GREEN)
    small = lean(picture)
    assert small.startswith(f"\x1b[38;{RED};48;{BLUE}m▀▄\x1b[48;{GREEN}m▄")
    assert seen(small) == seen(picture)
    assert seen(lean(cell(RED, BLUE))) != seen(cell(BLUE, RED)), "what differs is seen"


@pytest.mark.parametrize("colours", ["31;42", "38;2;1;1;1", "1;38;2;1;1;1;48;2;1;1;1", "7;31;41"])
def test_half_blocks_whose_colours_cannot_be_exchanged_stay(colours: str) -> None:
    assert "▀" in lean(f"\x1b[{colours}m▀\x1b[0m")


def test_random_pictures_stay_the_same() -> None:
    palette, pick = np.array([RED, BLUE, GREEN]), np.random.default_rng(0)
    rows = ["".join(cell(*palette[pick.integers(0, 3, 2)]) for _ in range(40)) for _ in range(20)]
    picture = "\r\n".join(rows)
    small = lean(picture)
    assert seen(small) == seen(picture) and len(small) < 0.6 * len(picture)


def test_what_is_not_written_can_be_forgotten() -> None:
    reader, writer = os.pipe()
    empty = threading.Event()
    outlet = Outlet(writer, empty.set)
    outlet.start()
    outlet.write("x" * 10_000_000)  # a pipe takes 64 KiB
    assert outlet.pending > 9_000_000 and not empty.is_set()
    outlet.forget()
    assert outlet.pending == 0
    outlet.write("end")
    written = b""
    while not written.endswith(b"end"):
        written += os.read(reader, 1 << 16)
    outlet.stop()
    assert len(written) < 9_000_000 + PIECE
    assert empty.wait(60)
    os.close(reader)
    os.close(writer)


def rest(pid: int) -> None:
    """Wait until a process has done what it was asked for: all its threads sleep for a while."""
    looks, end = 0, time.monotonic() + 60
    while looks < 10:
        assert time.monotonic() < end, "it never rests"
        time.sleep(0.05)
        looks = looks + 1 if sleeps(pid) else 0


def sleeps(pid: int) -> bool:
    """Whether no thread of a process runs or waits for a processor, as it may have ended."""
    stats = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            stats.append(path.read_text())
    return all(stat.rpartition(") ")[2][0] in "SZX" for stat in stats)


def test_leaving_does_not_wait_for_frames(run: RunDir) -> None:
    """Nobody reads while six pages are turned; what comes after `q` is not them."""
    with trainer(run):
        screen = terminal(run, COLORTERM="truecolor")
        try:
            screen.wait_for(b"overview")
            rest(screen.process.pid)
            screen.read(0.5)
            for key in (b"2", b"3", b"4", b"5", b"2", b"4"):
                screen.press(key)
                rest(screen.process.pid)
            seen_before = len(screen.output)
            screen.press(b"q")
            rest(screen.process.pid)  # the queue is thrown away before anybody reads
            assert screen.exit_code() == DETACHED
            assert screen.is_clean()
            after = len(screen.output) - seen_before
            assert after < MOST_BYTES, "one frame, where eleven were drawn on a fast line"
        finally:
            screen.close()
