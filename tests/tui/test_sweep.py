"""The dashboard of a sweep: its lines, their order, groups with intervals, and opening a run."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.store.events import Episode, EventWriter, Gauges, PhaseChanged, RunFinished
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.tui.__main__ import cli
from dreamer_async.tui.draw.rows import Row, cells
from dreamer_async.tui.read.sweep import SweepSource
from dreamer_async.tui.show import sweep as show
from dreamer_async.tui.sweep_app import SweepApp
from dreamer_async.tui.widgets.panel import Panel
from tests.tiny_run import STARTED

HOSTILE = "[@click=app.quit]x[/]\x1b[31m"


@pytest.fixture
def directory(tmp_path: Path) -> SweepDir:
    """Two learning rates of three seeds; the last run has not begun, the first one failed."""
    made = SweepDir(tmp_path / "sweep-toy")
    jobs = [
        Job(f"catch-lr{lr}-s{seed}", "catch", "tiny", seed, {"optim.lr": lr})
        for seed in range(3)
        for lr in ("1", "2")
    ]
    made.write(Sweep(VERSION, "toy", (), tuple(jobs)))
    for place, job in enumerate(jobs[:-1]):
        run = RunDir.create(made.path, job.name, config={}, now=None)
        with EventWriter(run.events_path, 0) as writer:
            writer.emit(dataclasses.replace(STARTED, steps=1000))
            writer.emit(PhaseChanged("training", 0, 0))
            for step in range(100, 1001 - 100 * place, 100):
                writer.emit(Episode(step, 0, float(job.settings["optim.lr"]) * 10 + job.seed, 10))
                writer.emit(Gauges(step, 1, {}))
            reason = "failed" if place == 0 else "completed"
            writer.emit(RunFinished(reason, 1000 - 100 * place, 1, 0, HOSTILE))
    return made


def written(row: Row) -> str:
    return "".join(part.text for part in row)


def opened(directory: SweepDir) -> SweepSource:
    source = SweepSource(directory.path)
    source.look()
    while not source.caught_up:
        source.read_piece()
    return source


def test_lines_say_how_runs_stand(directory: SweepDir) -> None:
    members = opened(directory).members
    assert [m.state for m in members] == ["failed", *["completed"] * 4, "waiting"]
    assert [m.steps for m in members] == [1000, 900, 800, 700, 600, 0]
    assert [m.score for m in members] == [10.0, 20.0, 11.0, 21.0, 12.0, None]
    text = "".join(part.text for part in show.line(members[1], 120, chosen=True))
    assert text.startswith("▸ catch-lr2-s0") and "completed" in text and "90%" in text


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("order", [0, 1, 2, 3, 4, 5]),
        ("return", [3, 1, 4, 2, 0, 5]),
        ("steps", [0, 1, 2, 3, 4, 5]),
        ("state", [1, 2, 3, 4, 0, 5]),
    ],
)
def test_lines_are_sorted_and_what_is_not_known_is_last(
    directory: SweepDir, by: str, expected: list[int]
) -> None:
    members = opened(directory).members
    assert [m.place for m in show.in_order(members, by, backwards=False)] == expected
    backwards = [m.place for m in show.in_order(members, "return", backwards=True)]
    assert backwards == [0, 2, 4, 1, 3, 5]


def test_groups_are_means_with_intervals(directory: SweepDir) -> None:
    members = opened(directory).members
    picture = show.chart(members, members[0])
    assert len(picture.curves) == len(picture.grounds) == 2
    first = picture.curves[0].trace
    assert first.y[0] == pytest.approx(11.0), "of 10, 11 and 12"
    assert first.y[-1] == pytest.approx(10.0), "only the first run has come so far"
    ground = picture.grounds[0].trace
    assert ground.low is not None and ground.high is not None
    assert (ground.low <= ground.y + 1e-9).all() and (ground.y <= ground.high + 1e-9).all()
    assert 10.0 <= ground.low[0] < 11.0 < ground.high[0] <= 12.0
    wide, narrow = zip(*picture.legend, strict=True)
    assert [written(entry) for entry in wide] == [
        "━ optim.lr=1 10.0 (1 of 3 runs)",
        "━ optim.lr=2 20.0 (1 of 3 runs)",
    ]
    assert [written(entry) for entry in narrow] == [
        "━ optim.lr=1 10.0 (1/3)",
        "━ optim.lr=2 20.0 (1/3)",
    ]


def test_a_mean_says_of_how_many_runs_its_last_value_is(directory: SweepDir) -> None:
    members = opened(directory).members
    one, *_ = show.chart(members[:1], members[0]).legend
    assert written(one[0]).endswith(" 10.0 (1 run)")
    twice = show.mean_of([members[0], members[0]])
    assert twice is not None and (twice.far, twice.runs) == (2, 2)


def test_the_head_says_how_every_run_is_before_it_says_a_long_name(directory: SweepDir) -> None:
    source = opened(directory)
    assert written(show.head(source, 120)).endswith("  67% of all steps")
    assert "dreamer-async sweep-toy  6 runs  1 failed  4 completed" in written(
        show.head(source, 120)
    )
    source.directory = SweepDir(directory.path.with_name("sweep-20261129-041300-classic-control"))
    for width in (60, 80):
        row = show.head(source, width)
        assert cells(row) == width
        assert written(row).startswith("▌sweep-") and written(row).endswith(" 67%")
        assert "ontrol  1 failed  4 completed  1 waiting " in written(row)


async def heights(directory: SweepDir) -> tuple[int, int]:
    """Rows of the list and of the chart below it."""
    app = SweepApp(directory.path)
    async with app.run_test(size=(80, 24)) as pilot:
        while not (app.source.members and app.source.caught_up):
            await pilot.pause(0.02)
        app.show()
        await pilot.pause()
        listing, chart = (app.screen.query_one(f"#sweep-{part}") for part in ("runs", "returns"))
        return listing.size.height, chart.size.height


def test_a_list_takes_the_rows_it_needs_and_leaves_the_chart_its_own(directory: SweepDir) -> None:
    assert asyncio.run(heights(directory)) == (8, 14), "title, heading, six runs"
    many = [Job(f"run-{n}", "catch", "tiny", n, {}) for n in range(50)]
    directory.write(Sweep(VERSION, "toy", (), tuple(many)))
    assert asyncio.run(heights(directory)) == (13, 9)


def test_an_interval_narrows_with_runs_and_is_repeatable() -> None:
    runs = np.random.default_rng(0).normal(size=(60, 3))
    low, high = show.interval(runs)
    few_low, few_high = show.interval(runs[:6])
    assert (high - low < few_high - few_low).all()
    np.testing.assert_array_equal(low, show.interval(runs)[0])
    width = 2 * 1.96 * runs.std(axis=0) / np.sqrt(60)
    np.testing.assert_allclose(high - low, width, rtol=0.25)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
def test_the_screen_is_filled_at_every_size(directory: SweepDir, size: tuple[int, int]) -> None:
    async def main() -> None:
        app = SweepApp(directory.path)
        async with app.run_test(size=size) as pilot:
            while not (app.source.members and app.source.caught_up):
                await pilot.pause(0.02)
            app.show()
            await pilot.pause()
            for panel in app.screen.query(Panel):
                assert app.screen.region.contains_region(panel.region), panel
            listing = app.screen.query_one("#sweep-runs", Panel)
            rows = listing.paint(*listing.content_size)
            text = "\n".join("".join(part.text for part in row) for row in rows)
            assert "catch-lr1-s0" in text and "completed" in text

    asyncio.run(main())


def test_keys_choose_sort_and_open(directory: SweepDir) -> None:
    async def main() -> Path | None:
        app = SweepApp(directory.path)
        async with app.run_test(size=(100, 30)) as pilot:
            while not (app.source.members and app.source.caught_up):
                await pilot.pause(0.02)
            app.show()  # the first run in order is chosen when it is first shown
            await pilot.press("s", "s", "s")
            assert app.sort == "return"
            await pilot.press("down")
            assert app.chosen == "catch-lr2-s2", "the one below the first, wherever that is now"
            await pilot.press("home")
            assert app.chosen == "catch-lr2-s1"
            await pilot.press("end", "enter")
            assert app.is_running, "what has not begun cannot be opened"
            await pilot.press("up", "enter")
        return app.return_value

    assert asyncio.run(main()) == directory.path / "catch-lr1-s0"


def test_a_sweep_grows_and_its_file_may_be_anything(directory: SweepDir) -> None:
    source = opened(directory)
    directory.file_path.write_text("{")
    source.look()
    assert "sweep.json" in source.problem and len(source.members) == 6
    assert "  sweep.json is not valid JSON: " in written(show.head(source, 80))
    job = Job("new", HOSTILE, "tiny", 0, {"optim.lr": HOSTILE})
    directory.write(Sweep(VERSION, "toy", (), (job,)))
    source = opened(directory)
    assert "\x1b" not in "".join((*source.members[0].group, source.members[0].name))


def test_a_picture_is_written(directory: SweepDir, tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    assert cli([str(directory.path), "--screenshot", str(out), "--size", "90x30"]) == 0
    assert "catch-lr1-s0" in out.read_text().replace("&#160;", " ")
