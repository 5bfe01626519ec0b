"""Keys and mouse that change what is seen: filter, axis, runs, overlays, screenshots, colours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.pilot import Pilot
from textual.widgets import OptionList

from dreamer_async.store.events import (
    Episode,
    Gauges,
    Metrics,
    PhaseChanged,
    RunStarted,
    encode_line,
)
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.draw.rows import Part, cells
from dreamer_async.tui.draw.text import plain, short
from dreamer_async.tui.show.options import AXES
from dreamer_async.tui.show.run_list import TAIL_BYTES, listed
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.dialogs import RunList
from dreamer_async.tui.widgets.metric import MetricScreen
from dreamer_async.tui.widgets.panel import Panel
from tests.tui.test_app import NOW, RECORDED, append, driven, screen, settle, text, trainer
from tests.tui.test_state import started


def made(path: Path, lr: float, lines: int) -> RunDir:
    run = RunDir(path)
    run.control.mkdir(parents=True)
    run.events_path.write_bytes(b"".join(RECORDED.read_bytes().splitlines(True)[:lines]))
    run.config_path.write_text(json.dumps({"optim": {"lr": lr}, "train": {"seed": 1}}))
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return made(tmp_path / "20261122-222755-toy-catch", 4e-5, 10_000)


@pytest.fixture
def older(tmp_path: Path) -> RunDir:
    return made(tmp_path / "20261121-101500-toy-catch-fast", 3e-4, 300)


def dashboard(run: RunDir, *, ascii: bool = False) -> Dashboard:
    return Dashboard(run.path, clock=lambda: NOW, animate=False, ascii=ascii)


async def caught_up(pilot: Pilot[int]) -> None:
    """Read every run that is shown to its end, and show it."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    while not all(source.caught_up for source in app.sources):
        app.read_piece()
    await settle(pilot)


@driven
async def test_the_filter_leaves_the_metrics_with_one_of_its_words(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"kl grad", "enter")
        await settle(pilot)
        shown = text(pilot)
        assert app.main.page.id == "losses" and "/kl grad" in shown
        assert "dynamics KL" in shown and "grad norm" in shown and "continue" not in shown
        await pilot.press("slash", *"xyz", "escape")
        await settle(pilot)
        assert "/kl grad" in text(pilot), "escape changes nothing"
        await pilot.press("slash", *["backspace"] * 7, "enter")
        await settle(pilot)
        assert "continue" in text(pilot) and "/kl" not in text(pilot)


@driven
async def test_a_filter_that_nothing_passes_says_so(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"zzqq", "enter")  # the page is made with nothing on it
        await settle(pilot)
        assert "no metric has /zzqq in its name" in text(pilot)
        await pilot.press("slash", *["backspace"] * 4, *"kl", "enter")
        await settle(pilot)
        assert "dynamics KL" in text(pilot) and "no metric" not in text(pilot)


@driven
async def test_curves_are_drawn_over_steps_frames_updates_or_hours(run: RunDir) -> None:
    start = RunStarted(
        *("run", "atari", "pong", "tiny", 1, "cpu", "float32", 4, 60_000),
        *(4, 64.0, 1, False, False, 60_000, 1, 1, "0"),
    )
    with open(run.events_path, "ab") as file:
        file.write(encode_line(start, NOW, 0.0, 0))
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        ends = {}
        for axis, unit in zip(AXES, ("steps", "frames", "updates", "hours"), strict=True):
            assert app.main.options.axis == axis
            assert f"{unit} " in text(pilot)
            picture = app.query_one("#returns", Chart).picture
            ends[axis] = max(curve.trace.x.max() for curve in picture.curves)
            await pilot.press("x")
            await settle(pilot)
        assert app.main.options.axis == AXES[0]
    view = app.source.view
    assert ends["steps"] == 13_184 and ends["frames"] == 4 * 13_184, "four frames a step"
    assert ends["updates"] == pytest.approx(view.updates, rel=0.02)
    assert ends["time"] == pytest.approx(view.clock.ran / 3600)


@driven
async def test_a_run_that_learns_from_what_was_recorded_is_drawn_over_updates(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    metrics = (Metrics(n, 0, {"loss/dyn": float(n)}) for n in range(100, 1001, 100))
    append(run, started(updates=4000), *metrics)
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await settle(pilot)
        assert "updates · mean of 20" in text(pilot), "where others say env steps"
        await pilot.press("i")
        await pilot.pause()
        chart = app.screen.query_one(Chart)
        assert chart.picture.curves[-1].trace.x.tolist() == list(range(100, 1001, 100))
        await pilot.press("plus")
        await pilot.pause()
        assert chart.picture.window == (500.0, 1000.0)
        for unit in ("hours", "updates"):
            await pilot.press("x")
            await pilot.pause()
            assert chart.picture.unit == unit


@driven
async def test_another_run_is_laid_over_and_taken_off_and_watched(
    run: RunDir, older: RunDir
) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "toy-catch-fast" not in text(pilot)
        for laid_over in (True, False, True):
            await pilot.press("r")
            assert isinstance(app.screen, RunList)
            await pilot.pause()
            assert app.screen.query_one(OptionList).option_count == 2
            await pilot.press("down", "space")
            await pilot.pause()
            marks = [row for row in screen(pilot) if f"+ {older.name}" in row]
            assert len(marks) == laid_over, "the list stays and shows it"
            await pilot.press("escape")
            await caught_up(pilot)
            assert ("△ toy-catch-fast" in text(pilot)) == laid_over
        await pilot.press("7")
        await settle(pilot)
        rows = screen(pilot)
        (setting,) = [row for row in rows if "optim.lr" in row]
        assert setting.split() == ["optim.lr", "4e-05", "0.0003"]
        assert not any("train.seed" in row for row in rows), "the same in both"
        await pilot.press("r", "down", "enter")
        await caught_up(pilot)
        assert older.name in screen(pilot)[0] and app.others == []
        assert app.source.run_dir.path == older.path


def test_the_list_of_runs_finds_rare_episodes(run: RunDir, older: RunDir) -> None:
    with open(run.events_path, "ab") as file:
        for index in range(20):
            file.write(encode_line(Episode(50_000, 0, float(index), 5), NOW, 0.0, 0))
        gauges = Gauges(50_000, 9, {f"stage/{name}": 0.5 for name in range(40)})
        line = encode_line(gauges, NOW, 0.0, 0)
        file.write(line * (2 * TAIL_BYTES // len(line)))
    (older.path / "events.jsonl").unlink()
    os.mkfifo(older.events_path)
    os.utime(older.config_path, (0, 0))  # without a stream it tells when the run began
    newest, other = listed(run.path.parent, run.name, [], 64)
    assert newest[1].startswith(f"▸ {run.name}") and newest[1].endswith("50.0k    9.50")
    assert cells([Part(newest[1])]) == 64
    assert other[0] == older.name, "a pipe is waited for by nobody"


def test_the_list_of_runs_finds_the_phase_before_the_end_of_the_stream(run: RunDir) -> None:
    with open(run.events_path, "ab") as file, trainer(run):
        file.write(encode_line(PhaseChanged("paused", 50_000, 9), NOW, 0.0, 0))
        gauges = Gauges(50_000, 9, {f"stage/{name}": 0.5 for name in range(40)})
        line = encode_line(gauges, NOW, 0.0, 0)
        file.write(line * (2 * TAIL_BYTES // len(line)))
        file.flush()
        ((_, row),) = listed(run.path.parent, run.name, [], 64)
    assert " paused " in row


@driven
async def test_runs_that_differ_at_the_end_of_long_names_are_told_apart(run: RunDir) -> None:
    for seed in range(2):
        name = f"20261122-222700-dmc-walker_walk-size12m-lr1e-4-ratio512-s{seed}"
        copytree(run.path, run.path.with_name(name))
    app = dashboard(run)
    for size in ((80, 24), (120, 40)):
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await pilot.press("r")
            await pilot.pause()
            rows = [row for row in text(pilot).split("\n") if "-ratio512-s" in row]
            assert len(rows) == 2 and "-s0 " in rows[1] + rows[0] and "-s1 " in rows[1] + rows[0]
            assert all("13.1k" in row for row in rows), "and what they are is not cut"
        app = dashboard(run)


@driven
async def test_what_is_said_stays_below_the_header_and_is_whole(run: RunDir) -> None:
    app = dashboard(run)
    why = "no space left on device: '/data/runs/20261122-222755-toy-catch/checkpoints'"
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        for _ in range(4):
            app.notify("saved", markup=False)
            await pilot.pause()
        app.notify(f"could not save a checkpoint: {why}", severity="error", markup=False)
        await pilot.pause(0.1)
        (toast,) = app.screen.query("Toast")
        assert toast.region.y == 3, "those before take no room"
        assert why.split(": ")[1] in text(pilot)


@driven
async def test_a_run_is_not_laid_over_itself(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("r", "space", "escape")
        await settle(pilot)
        assert app.others == []
        assert "shown already" in list(app._notifications)[-1].message


@driven
async def test_the_screen_is_saved_as_svg(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("S")
        said: list[str] = []
        for _ in range(200):  # a thread writes it
            await pilot.pause(0.05)
            if said := [n.message for n in app._notifications]:
                break
        (file,) = tmp_path.glob("*.svg")
        assert "returns" in file.read_text(encoding="utf-8")
        assert str(file) in said[-1]


@driven
async def test_without_colours_films_are_shades_and_everything_is_grey(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.no_color and "return scale S" in text(pilot)
        svg = app.export_screenshot()
    colours = {part[:6] for part in svg.split('fill="#')[1:] if part[6] == '"'}
    seen = {colour for colour in colours if len({colour[:2], colour[2:4], colour[4:]}) > 1}
    frame = {"ff5f57", "febc2e", "28c840", "c5c8c6"}  # the window that Rich draws around it
    assert seen <= frame, seen


@driven
async def test_every_theme_has_its_own_colours(run: RunDir) -> None:
    """Looks belong to the app: the panels must hear of a change."""
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        styles = set()
        for _ in range(3):
            title = app.query_one("#returns", Panel).render_line(0)
            styles.add(str(next(s.style for s in title if "returns" in s.text)))
            await pilot.press("t")
            await settle(pilot)
        assert len(styles) == 3, styles


@driven
async def test_the_value_below_the_mouse_is_said(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        chart = app.query_one("#returns", Chart)
        mean = [curve for curve in chart.picture.curves if curve.look == "line"][-1].trace
        ends = mean.x[0], mean.x[-1]
        for column in (0, 20, chart.size.width - 8):
            await pilot.hover(chart, offset=(7 + column, 5))
            await pilot.pause()
            title = chart.render_line(0).text
            below = np.interp(column, (0, chart.size.width - 8), ends)
            near = np.abs(mean.x - below) < (ends[1] - ends[0]) / (chart.size.width - 7)
            points = zip(mean.x[near].tolist(), mean.y[near].tolist(), strict=True)
            assert any(title.endswith(f" at {plain(x)}: {short(y)}") for x, y in points), title
            assert np.count_nonzero(near) < 20, "not any point"
        await pilot.hover(chart, offset=(2, 5))
        await pilot.pause()
        assert " at " not in chart.render_line(0).text, "over the labels"
        await pilot.hover(chart, offset=(20, 5))
        await pilot.hover("#keys")
        await pilot.pause()
        assert " at " not in chart.render_line(0).text, "away"


@driven
async def test_the_mouse_turns_pages_opens_charts_and_zooms(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.click("#keys", offset=(screen(pilot)[-1].index("losses") + 1, 0))
        await settle(pilot)
        assert app.main.page.id == "losses"
        chart = app.main.query_one("#losses-sections").query(Chart).first()
        await pilot.click(chart, offset=(3, 2))
        await pilot.pause()
        assert isinstance(app.screen, MetricScreen) and "Reconstruction of one" in text(pilot)
        await pilot.press("escape")
        for turned, span in ((MouseScrollUp, 0.5), (MouseScrollUp, 0.25), (MouseScrollDown, 0.5)):
            x, y = chart.region.x + 3, chart.region.y + 2
            flags = (0, 0, 0, False, False, False, x, y)
            app.post_message(turned(None, x, y, *flags))  # as a terminal's driver makes it
            await pilot.pause()
            await settle(pilot)
            assert app.main.options.zoom.span == span
        assert "newest 1/2 of the run" in text(pilot)
        await pilot.click("#alerts")
        await settle(pilot)
        assert app.main.page.id == "log"
