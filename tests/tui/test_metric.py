"""A number in full: the dialog that `i` opens, and the CSV that `E` saves."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dreamer_async.store.events import Episode, Evaluated, Metrics, PhaseChanged, Record
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.export import COLUMNS, file_name, to_csv
from dreamer_async.tui.show.options import Options
from dreamer_async.tui.show.pictures import returns
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.metric import MetricScreen
from tests.tui.test_app import RECORDED, append, dashboard, driven, settle, text


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    path = tmp_path / "20261122-222755-toy-catch"
    (path / "control").mkdir(parents=True)
    (path / "events.jsonl").write_bytes(RECORDED.read_bytes())
    return RunDir(path)


def shown_chart(pilot: Pilot[int]) -> Chart:
    assert isinstance(pilot.app.screen, MetricScreen)
    return pilot.app.screen.query_one(Chart)


@driven
async def test_the_dialog_follows_the_run(run: RunDir) -> None:
    async with dashboard(run).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("2", "i")
        await pilot.pause()
        assert "12.345" not in text(pilot)
        append(run, Metrics(10_000, 60_000, {"loss/vector": 12.345}))
        await settle(pilot)
        assert "12.3 " in text(pilot), "without closing and opening it"


@driven
async def test_curves_are_zoomed_smoothed_and_laid_on_another_axis_in_the_dialog(
    run: RunDir,
) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("2", "i")
        await pilot.pause()
        for key, what, value in (
            ("plus", "window", (6559.0, 13118.0)),
            ("left", "window", (4919.25, 11478.25)),
            ("minus", "window", None),
            ("x", "unit", "frames"),
            ("y", "log", "log"),
        ):
            await pilot.press(key)
            await pilot.pause()
            assert getattr(shown_chart(pilot).picture, what) == value, key
        assert len(shown_chart(pilot).picture.curves) == 2
        await pilot.press("s", "s", "s")
        await pilot.pause()
        assert app.main.options.smoothing == 1
        assert len(shown_chart(pilot).picture.curves) == 1


def evaluated(*means: float) -> list[Evaluated]:
    """Evaluations a thousand steps and a hundred updates from each other."""
    return [
        Evaluated(1000 * n, 100 * n, (mean - 1, mean + 1), (5, 5), 1.0)
        for n, mean in enumerate(means, start=1)
    ]


@driven
async def test_lengths_and_evaluations_are_drawn_as_their_charts_are(run: RunDir) -> None:
    append(run, *evaluated(3.0, 7.0))
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("5")
        await settle(pilot)
        await pilot.click("#lengths")
        await pilot.pause()
        lengths = app.source.view.lengths.mean.tolist()
        picture = shown_chart(pilot).picture
        assert picture.name == "episode/length" and len(lengths) > 50
        assert picture.curves[0].trace.y.tolist() == lengths
        await pilot.press("escape", "i", "down", "down")
        await pilot.pause()
        picture = shown_chart(pilot).picture
        assert picture.name == "evaluation/mean" and picture.unit == "steps"
        ranges, means = (curve.trace for curve in picture.curves)
        assert means.x.tolist() == [1000, 2000] and means.y.tolist() == [3, 7]
        assert ranges.bottom.tolist() == [2, 6] and ranges.top.tolist() == [4, 8]
        assert "7.00" in text(pilot)


def test_evaluations_are_saved_with_their_ranges() -> None:
    view = rebuild([Record(event, 0.0, 0.0, 0) for event in evaluated(3.0, 7.0)])
    assert to_csv(view, "evaluation/mean").splitlines() == [
        ",".join(COLUMNS),
        "1000,100,0,2,3,4",
        "2000,200,0,6,7,8",
    ]


@pytest.mark.parametrize(("keys", "name"), [("1", "episode-score"), ("2i", "loss-vector")])
@driven
async def test_a_number_is_saved_as_csv(
    run: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press(*keys, "E")
        said: list[str] = []
        for _ in range(200):  # a thread writes it
            await pilot.pause(0.05)
            if said := [n.message for n in app._notifications]:
                break
        path = tmp_path / f"toy-catch-{name}.csv"
        assert str(path) in said[-1]
    view = app.source.view
    series = view.episodes if keys == "1" else view.metrics["loss/vector"]
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert len(rows) == len(series) > 50 and tuple(rows[0]) == COLUMNS
    assert float(rows[-1]["mean"]) == pytest.approx(series.mean[-1])
    assert float(rows[-1]["env_steps"]) == series.x[-1]


@driven
async def test_a_table_that_cannot_be_saved_is_told(
    run: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy-catch-episode-score.csv").mkdir()
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("E")
        for _ in range(200):
            await pilot.pause(0.05)
            if app._notifications:
                break
        assert "could not be saved" in list(app._notifications)[-1].message


def test_gauges_are_saved_as_far_as_they_are_kept() -> None:
    from tests.tui.test_pages import gauges_view

    lines = to_csv(gauges_view(policy__lag=2.0), "policy/lag").splitlines()
    assert lines[0] == "env_steps,update,seconds,value" and lines[-1] == "1,1,90,2"
    assert to_csv(RunView(), "nobody/knows") == "env_steps,update,seconds,value\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss/dyn", "run-loss-dyn.csv"),
        ("../../etc/passwd", "run-..-..-etc-passwd.csv"),
        ("a\x1b[2J b", "run-a-2J-b.csv"),
        ("x" * 500, f"run-{'x' * 116}.csv"),
    ],
)
def test_no_name_of_a_number_leaves_the_directory(name: str, expected: str) -> None:
    assert file_name("run", name) == expected
    assert "/" not in file_name("../..", name) and not file_name("..", name).startswith(".")


def test_evaluations_stand_where_they_were_on_every_axis() -> None:
    events = [
        PhaseChanged("training", 0, 0),
        Episode(50, 0, 1.0, 5),
        Evaluated(100, 10, (1.0, 3.0), (5, 5), 1.0),
        Episode(400, 0, 1.0, 5),
    ]
    view = rebuild([Record(event, 0.0, 900.0 * i, 0) for i, event in enumerate(events)])
    for axis, place in (("steps", 100), ("updates", 10), ("time", 0.5)):
        (evaluated,) = [c for c in returns(view, Options(axis=axis)).curves if c.look == "accent"]  # type: ignore[arg-type]
        assert evaluated.trace.x.tolist() == [place] and evaluated.trace.y.tolist() == [2.0]
