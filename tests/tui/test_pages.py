"""The pages beside the overview, what they are made from, and films from strangers."""

from __future__ import annotations

import json
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from tiny_run import make_run, read

from dreamer_async.store.events import (
    Evaluated,
    Event,
    Gauges,
    Metrics,
    PhaseChanged,
    Record,
    RunStarted,
    Warned,
    read_events,
)
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.draw.rows import cells
from dreamer_async.tui.pages.episodes import episode_row
from dreamer_async.tui.read import film
from dreamer_async.tui.read.compare import differences
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.seek import seek_time
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.read.tail import decode
from dreamer_async.tui.read.view import EpisodeRow, RunView
from dreamer_async.tui.show import alarms, glossary, stages
from dreamer_async.tui.show.options import Zoom
from tests.replay.test_episodes import UNCLOSED
from tests.tui.test_app import (
    NOW,
    RECORDED,
    append,
    dashboard,
    driven,
    screen,
    settle,
    text,
    trainer,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    path = tmp_path / "20261122-222755-toy-catch"
    (path / "control").mkdir(parents=True)
    (path / "pictures").mkdir()
    (path / "events.jsonl").write_bytes(RECORDED.read_bytes())
    shot(path / "pictures" / "film.npz")
    return RunDir(path)


def shot(path: Path, **changes: np.ndarray) -> None:
    meta = {"version": 1, "update": 7, "env_steps": 9, "context": 2, "time": NOW - 5}
    content = {
        "meta": np.array(json.dumps(meta)),
        "is_first": np.zeros((2, 4), bool),
        "image/cam": np.full((3, 2, 4, 8, 8, 3), 99, np.uint8),
        "vector/pole": np.ones((3, 2, 4, 3), np.float32),
    }
    np.savez(path, **{**content, **changes})


def test_every_number_of_a_run_has_a_text_of_its_own(tmp_path: Path) -> None:
    """Pixels; the test of the event files asks the same of vectors."""
    from dreamer_async.run import pipeline

    run = make_run(tmp_path, "train.steps=80", task="catch_pixels")
    assert pipeline.main(run, plain=False, resume=False) == 0
    names = {name for event in read(run) for name in getattr(event, "values", ())}
    assert {"loss/image", "loss/dyn", "rate/updates"} <= names
    assert names - set(glossary.meanings()) == {"loss/image"}
    assert glossary.find("loss/image") is not None and glossary.find("nobody/knows") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"image/cam": np.zeros((3, 2, 4, 8, 8, 3), np.float32), "vector/pole": np.zeros(3)},
        {"is_first": np.zeros(0, bool)},
        {"meta": np.array("[]")},
        {"meta": np.array("{")},
        {"meta": np.array(None, object)},
    ],
)
def test_a_film_that_is_none_is_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    path = tmp_path / "film.npz"
    shot(path)
    assert len(film.load(path).shots()) == 4
    shot(path, **changes)
    with pytest.raises(ValueError):
        film.load(path)


def test_any_damage_to_a_film_is_trouble_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "film.npz"
    shot(path)
    good = path.read_bytes()
    for place in range(0, len(good), 41):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        film.FilmFile(path).look()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", UNCLOSED)
    with pytest.raises(ValueError, match="not a film"):
        film.load(path)
    path.write_bytes(good[: len(good) // 2])
    file = film.FilmFile(path)
    assert file.look() and file.film is None and file.trouble


def gauges_view(**values: float) -> RunView:
    events: list[Event] = [PhaseChanged("training", 1, 1)]
    events += [Gauges(1, 1, {k.replace("__", "/"): v for k, v in values.items()})] * 90
    return rebuild([Record(event, float(i), float(i), 0) for i, event in enumerate(events)])


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"stage__update": 0.97, "stage__ratio_wait": 0.9}, "The update limits"),
        ({"stage__learner_wait": 0.8, "stage__env_wait": 0.7}, "The environments limit"),
        ({"stage__learner_wait": 0.8, "stage__policy": 0.7}, "Acting limits"),
        ({"stage__sample": 0.6, "stage__update": 0.3}, "The replay limits"),
        ({"stage__gpu_wait": 0.9, "stage__sample": 0.05, "stage__update": 0.005}, "The GPU limits"),
        ({"stage__gpu_wait": 0.3, "stage__update": 0.6}, "The update limits"),
        (
            {"stage__gpu_wait": 0.3, "stage__sample": 0.6, "stage__update": 0.01},
            "The replay limits",
        ),
        (
            {"stage__gpu_wait": 0.1, "stage__learner_wait": 0.8, "stage__policy": 0.7},
            "Acting limits",
        ),
    ],
)
def test_the_verdict_names_what_limits(shares: dict[str, float], words: str) -> None:
    assert stages.verdict(gauges_view(**shares), Phase("training")).limit.startswith(words)


def test_waiting_for_a_gpu_is_a_stage_where_there_is_one() -> None:
    """It counts as the learner's work, which other stages of the learner wait for."""
    gpu = gauges_view(stage__gpu_wait=0.9, stage__update=0.01, stage__sample=0.05)
    cpu = gauges_view(stage__update=0.9, stage__sample=0.05)
    labels = [[strip.label for strip in stages.strips(view)] for view in (gpu, cpu)]
    assert [name for name in labels[0] if name not in labels[1]] == ["GPU wait"]
    meters = [[meter.label for meter in stages.pipeline(view)] for view in (gpu, cpu)]
    assert "GPU wait" in meters[0] and "GPU wait" not in meters[1]
    sampling = next(strip for strip in stages.strips(gpu) if strip.label == "replay sample")
    assert round(sampling.waits[0].share, 2) == 0.91


def test_a_pause_says_nothing_about_what_limits() -> None:
    busy = {"stage/update": 0.97, "stage/ratio_wait": 0.9, "stage/learner_wait": 0.0}
    idle = {"stage/update": 0.0, "stage/ratio_wait": 0.0, "stage/learner_wait": 1.0}
    events: list[Event] = [PhaseChanged("training", 1, 1), *[Gauges(1, 1, busy)] * 9]
    events += [PhaseChanged("paused", 1, 1), *[Gauges(1, 1, idle)] * 9]
    events += [PhaseChanged("training", 1, 1), Gauges(2, 2, busy)]
    view = rebuild([Record(event, float(i), float(i), 0) for i, event in enumerate(events)])
    assert stages.shares(view) == {"update": 0.97, "ratio_wait": 0.9, "learner_wait": 0.0}
    assert stages.verdict(view, Phase("training")).limit.startswith("The update limits")


def test_alarms_hold_only_while_their_condition_does() -> None:
    def texts(now: float = 91.0, **values: float) -> str:
        found = alarms.standing(gauges_view(**values), Phase("training"), now)
        return " | ".join(alarm.text for alarm in found)

    assert "disk nearly full" in texts(disk__free_gb=1.0, rate__updates=1.0)
    assert "stalled" in texts(rate__updates=0.0, rate__env_steps=0.0)
    assert "no news" in texts(now=200.0, rate__updates=1.0)
    assert texts(disk__free_gb=100.0, rate__updates=1.0) == ""


def test_what_is_no_warning_leaves_the_line_to_one_that_is() -> None:
    events = [
        Warned("warning", "before this start"),
        RunStarted(
            *("run", "toy", "catch", "tiny", 1, "cpu", "float32", 4, 60_000),
            *(1, 64.0, 1, False, True, 60_000, 1, 1, "0"),
        ),
        Warned("warning", "slow"),
        Warned("info", "compiled"),
    ]
    times = (50.0, 100.0, 110.0, 120.0)

    def said(last: int, now: float) -> str:
        records = [Record(e, t, t, 0) for e, t in zip(events[:last], times, strict=False)]
        row, *_ = alarms.line(rebuild(records), Phase("starting"), now, "run")
        return "".join(part.text for part in row)

    assert said(2, 101.0) == "no warnings"
    assert said(3, 125.0).endswith("slow")
    assert said(4, 125.0).endswith("compiled") and said(4, 300.0).endswith("slow")


def test_a_return_scale_that_falls_back_to_its_floor_is_told() -> None:
    scales = [1.0, 1.5, 3.0, 1.0]
    events = [Metrics(n, n, {"return/S": scale}) for n, scale in enumerate(scales)]
    told = []
    for last in (2, 3, 4):
        records = [Record(e, float(i), float(i), 0) for i, e in enumerate(events[:last])]
        told.append(bool(alarms.standing(rebuild(records), Phase("training"), float(last))))
    assert told == [False, False, True], "below 2 it never left; at 3 it is away; then it collapsed"


def test_zoom_stays_inside_and_follows_the_newest() -> None:
    zoom = Zoom().closer().closer()
    assert (zoom.span, zoom.end) == (0.25, 1.0)
    assert zoom.moved(-1).end < 1.0 and zoom.moved(1).end == 1.0
    for _ in range(20):
        zoom = zoom.moved(-1)
    assert zoom.end == zoom.span and zoom.wider().wider().wider() == Zoom()


def test_only_settings_that_differ_are_listed() -> None:
    assert differences([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}]) == [("b", ["2", "3"])]


def test_a_long_history_is_read_newest_part_first(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The early view knows the end and the run's name; the final one equals a plain reading."""
    monkeypatch.setattr("dreamer_async.tui.read.source.LONG_BYTES", 1)
    monkeypatch.setattr("dreamer_async.tui.read.source.FIRST_SECONDS", 20.0)
    assert seek_time(run.events_path, 20.0) > 0
    source = Source(run.path)
    source.open()
    newest = source._newest
    assert newest is not None
    while newest.behind or not newest.offset:
        source.read_piece()
        if not newest.size or newest.offset >= newest.size:
            break
    while not source.caught_up:
        source.read_piece()
    plain = rebuild(read_events(run.events_path)[0])
    assert source.view.metrics == plain.metrics and source.view.episodes == plain.episodes


def test_the_short_way_of_decoding_gives_the_same_records() -> None:
    from dreamer_async.store.events import decode_line

    for line in RECORDED.read_bytes().splitlines():
        assert decode(line) == decode_line(line)


def test_bars_of_episodes_take_the_room_there_is() -> None:
    view = RunView(rows=deque([EpisodeRow(1, 0.0, 100, 0, 0.5, 7)]))
    rows = {width: episode_row(view, 0, 0.0, 1.0, width) for width in range(1, 200)}
    bare = {width for width, row in rows.items() if len(row) == 3}
    assert 20 < max(bare) < 60 and bare == set(range(1, max(bare) + 1))
    for width in set(rows) - bare:
        assert cells(rows[width]) == width
        shares = [cells([part]) for part in rows[width][-2:]]
        assert abs(shares[0] - shares[1]) <= 1, "half way, however wide"


@driven
async def test_evaluations_and_explanations_are_shown(run: RunDir) -> None:
    append(run, Evaluated(5, 6, (1.0, 2.0), (3, 4), 0.5))
    with trainer(run):
        async with dashboard(run).run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            await pilot.press("5")
            await settle(pilot)
            assert "mean 1.50" in text(pilot)
            await pilot.press("e")
            assert [request.command for request in run.take_requests()] == ["evaluate"]
            await pilot.press("3", "i")
            await pilot.pause()
            shown = " ".join(screen(pilot))
            assert "ratio/actual (replayed per step)" in shown and "the slower side" in shown
