"""Every page and dialog at every size against what was looked at and found good.

Each screen is stored twice: as text, whose differences can be read, and as SVG, which has the
colours. `SCREENS=write python -m pytest tests/tui/test_screens.py` writes both anew; look at them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import svg_screens
from textual.pilot import Pilot

from dreamer_async.store.events import Episode, EventWriter, Gauges, PhaseChanged, RunFinished
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.main_screen import NAMES
from dreamer_async.tui.sweep_app import SweepApp
from dreamer_async.tui.themes import NIGHT, THEMES
from tests.tiny_run import STARTED
from tests.tui.test_app import NOW, RECORDED, SIZES, assert_filled, driven, text, trainer

SCREENS = Path(__file__).parents[1] / "data" / "tui" / "screens"
WRITE = os.environ.get("SCREENS") == "write"
ROUNDS = 200
"""Most looks at a screen that is not yet as it should be: a busy machine lays out late."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    """The recorded run, with a film and a trainer; times are shown in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    run = made(tmp_path / "20261122-222755-toy-catch", RECORDED.read_bytes(), lr=4e-5)
    film(run.film_path)
    with trainer(run):
        yield run
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def other(tmp_path: Path) -> RunDir:
    """The first half of it, with another learning rate."""
    half = b"".join(RECORDED.read_bytes().splitlines(keepends=True)[:300])
    return made(tmp_path / "20261121-101500-toy-catch-fast", half, lr=3e-4)


def made(path: Path, stream: bytes, lr: float) -> RunDir:
    run = RunDir(path)
    run.control.mkdir(parents=True)
    run.pictures.mkdir()
    run.events_path.write_bytes(stream)
    run.config_path.write_text(json.dumps({"optim": {"lr": lr}, "train": {"seed": 1}}))
    return run


def film(path: Path) -> None:
    """A ball that flies through 12x12 pixels, blurred in the dream, and a vector that swings."""
    steps, grid = 12, np.arange(12)
    far = (grid[:, None] - grid) ** 2 + (grid[:, None, None] - grid[:, None]) ** 2  # [T, H, W]
    sharp, blurred = (255 * np.exp(-far / width) for width in (0.5, 6.0))
    ball = np.stack([sharp, sharp * 0.8, blurred]).astype(np.uint8)[:, None, ..., None]
    swing = np.sin(np.linspace(0, 6, steps)) * np.array([[1.0], [0.9], [0.5]])
    np.savez(
        path,
        meta=np.array(json.dumps({"update": 3000, "env_steps": 12_000, "context": 4, "time": NOW})),
        is_first=np.arange(steps)[None] == 9,
        **{"image/ball": ball, "vector/pole": swing[:, None, :, None].astype(np.float32)},
    )


Screen = tuple[str, str]
"""Text and normal SVG."""


def stored(name: str) -> Screen:
    svg, _ = svg_screens.load(SCREENS / f"{name}.svg.gz")
    return (SCREENS / f"{name}.txt").read_text(encoding="utf-8"), svg


async def shown(pilot: Pilot[Any], text_wanted: str | None = None) -> Screen:
    """What is on the screen; the picture, which takes long, only if the text is as wanted."""
    app = pilot.app
    await pilot.pause()
    if isinstance(app, SweepApp):
        app.show()
    else:
        assert isinstance(app, Dashboard)
        while app.main.turning:
            await pilot.pause()
        app.show_now()
    await pilot.pause()
    rows = "".join(f"{row.rstrip()}\n" for row in text(pilot).split("\n"))
    if text_wanted not in (None, rows):
        return rows, ""
    return rows, svg_screens.normal(app.export_screenshot(title=""))


async def assert_screen(pilot: Pilot[Any], name: str, folder: Path) -> None:
    """Wait until the screen is as stored; fails with the difference, leaving both in a folder."""
    wanted, now = None if WRITE else stored(name), ("", "")
    for look in range(ROUNDS):
        before, now = now, await shown(pilot, wanted[0] if wanted else None)
        if now == wanted or (WRITE and look > 5 and now == before):
            break
    path = SCREENS / f"{name}.txt"
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now[0], encoding="utf-8")
        svg_screens.store(path.with_suffix(".svg.gz"), now[1])
    elif wanted is not None:
        assert now[0] == wanted[0]
        svg_screens.assert_same(now[1], path.with_suffix(".svg.gz"), folder)


async def read_all(pilot: Pilot[int]) -> None:
    app = pilot.app
    assert isinstance(app, Dashboard)
    while not (app.main.ready and all(source.caught_up for source in app.sources)):
        app.read_piece()
        await pilot.pause()
    app.check_trainer()
    app.check_trainer()


@pytest.mark.parametrize("size", SIZES)
@driven
async def test_every_page(
    run: RunDir, other: RunDir, size: tuple[int, int], tmp_path: Path
) -> None:
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=size) as pilot:
        await read_all(pilot)
        for number, name in enumerate(NAMES, start=1):
            if name == "compare":
                app.overlay(other.path)
                await read_all(pilot)
            await pilot.press(str(number))
            await assert_screen(pilot, f"{size[0]}x{size[1]}-{name}", tmp_path)
            assert_filled(pilot, size)


DIALOGS = {"question_mark": "help", "i": "explained", "Q": "stop", "slash": "filter", "r": "runs"}


@pytest.mark.parametrize("size", SIZES)
@driven
async def test_every_dialog(
    run: RunDir, other: RunDir, size: tuple[int, int], tmp_path: Path
) -> None:
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=size) as pilot:
        await read_all(pilot)
        for key, name in DIALOGS.items():
            await pilot.press(key)
            await assert_screen(pilot, f"{size[0]}x{size[1]}-{name}", tmp_path)
            await pilot.press("escape")


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
@driven
async def test_every_theme(run: RunDir, theme: str, tmp_path: Path) -> None:
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await read_all(pilot)
        app.theme = theme
        await assert_screen(pilot, f"theme-{theme}", tmp_path)


@driven
async def test_one_wrong_colour_is_seen(run: RunDir, tmp_path: Path) -> None:
    """The text is the same, the picture is not."""
    app = Dashboard(run.path, clock=lambda: NOW, animate=False)
    other = replace(NIGHT, name="other", warning="#e3b342")
    app.register_theme(other)
    async with app.run_test(size=(80, 24)) as pilot:
        await read_all(pilot)
        await assert_screen(pilot, "80x24-overview", tmp_path)
        app.theme = other.name
        rows, svg = await shown(pilot)
        assert rows == stored("80x24-overview")[0]
        with pytest.raises(AssertionError, match="#e2b342"):
            svg_screens.assert_same(svg, SCREENS / "80x24-overview.svg.gz", tmp_path)
    assert len(list(tmp_path.glob("80x24-overview-*.svg"))) == 2, "both to look at"


@driven
async def test_every_page_in_ascii(run: RunDir, other: RunDir, tmp_path: Path) -> None:
    """A terminal without Unicode; films are drawn in shades."""
    app = Dashboard(run.path, [other.path], clock=lambda: NOW, animate=False, ascii=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await read_all(pilot)
        for number, name in enumerate(NAMES, start=1):
            await pilot.press(str(number))
            if name == "world":
                await pilot.press(*["right"] * 5)
            await assert_screen(pilot, f"ascii-{name}", tmp_path)
            assert text(pilot).isascii(), name
        await pilot.press("v")
        await assert_screen(pilot, "ascii-world-vector", tmp_path)
        for key, name in (("i", "explained"), ("question_mark", "help")):
            await pilot.press(key)
            await assert_screen(pilot, f"ascii-{name}", tmp_path)
            assert text(pilot).isascii(), name
            await pilot.press("escape")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SweepDir]:
    """Two learning rates of three seeds: complete, failed, stopped, in training, waiting."""
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-01")
    swept = SweepDir(tmp_path / "sweep-toy")
    jobs = [
        Job(f"catch-lr{lr}-s{seed}", "catch", "tiny", seed, {"optim.lr": lr})
        for seed in range(3)
        for lr in ("4e-5", "1e-4")
    ]
    swept.write(Sweep(VERSION, "toy", (), tuple(jobs)))
    ends = ["completed", "completed", "failed", "stopped", ""]
    for place, (job, end) in enumerate(zip(jobs, ends, strict=False)):
        steps = 1000 if end == "completed" else 900 - 100 * place
        run = RunDir.create(swept.path, job.name, config={}, now=None)
        learn(run, job.seed, steps, end, best=10.0 if place % 2 else 6.0)
    with trainer(swept.run(jobs[4])):
        yield swept


def learn(run: RunDir, seed: int, steps: int, end: str, best: float) -> None:
    """Write the stream of a run whose returns grow, and end it unless somebody trains in it."""
    now = [NOW - steps]
    clocks = {"clock": lambda: now[0], "monotonic": lambda: now[0] - NOW}
    with EventWriter(run.events_path, 0, **clocks) as writer:
        writer.emit(replace(STARTED, run=run.name, steps=1000))
        writer.emit(PhaseChanged("training", 0, 0))
        for step in range(20, steps + 1, 20):
            now[0] += 20
            score = best * np.tanh(step / (300 + 100 * seed)) + np.sin(step + seed)
            writer.emit(Episode(step, 0, float(score), 10))
            writer.emit(Gauges(step, step // 4, {}))
        if end:
            writer.emit(RunFinished(end, steps, steps // 4, 70 * (end == "failed"), ""))


@pytest.mark.parametrize("size", SIZES[:2])
@driven
async def test_the_page_of_a_sweep(sweep: SweepDir, size: tuple[int, int], tmp_path: Path) -> None:
    app = SweepApp(sweep.path, clock=lambda: NOW)
    async with app.run_test(size=size) as pilot:
        while not (app.source.caught_up and app.chosen):  # which the cursor keeps to
            await pilot.pause(0.02)
        await pilot.press("s", "s", "s", "b", "down")
        await assert_screen(pilot, f"{size[0]}x{size[1]}-sweep", tmp_path)
