"""Experiment trackers: the numbers of the event stream under the same names, and no harm done.

Those whose extra is not installed are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import STARTED, extend, make_run, read

from dreamer_async.cli import main
from dreamer_async.run import aio, pipeline, trackers
from dreamer_async.run.films.film import write
from dreamer_async.run.films.film_gif import FilmGif
from dreamer_async.run.trackers import TRACKERS, Numbers, Tracker, numbers_of
from dreamer_async.store import events, run_dir
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.show.glossary import meanings


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Recorder:
    """A backend that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[Numbers] = []
        self.films: list[tuple[bytes, int]] = []
        self.closed = False

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.seen.append(Numbers(dict(values), step))

    def film(self, gif: bytes, step: int) -> None:
        self.films.append((gif, step))

    def close(self) -> None:
        self.closed = True


# -- the interface ---------------------------------------------------------------------------


def test_the_words_of_the_command_are_the_folders_of_a_run() -> None:
    assert tuple(TRACKERS) == run_dir.TRACKERS


def test_numbers_have_the_names_and_steps_of_the_stream() -> None:
    assert numbers_of(STARTED, 4) is None
    gauges = numbers_of(events.Gauges(250, 4, {"a/b": 1.0, "c": None}), 4)
    assert gauges == Numbers({"a/b": 1.0, "progress/frames": 1000.0, "progress/updates": 4.0}, 250)
    played = events.Evaluated(9, 1, (1.0, 2.0), (3, 4), 1.0)
    assert numbers_of(played, 1) == Numbers({"evaluation/mean": 1.5}, 9)


def test_a_tracker_gets_all_numbers_and_films_in_order() -> None:
    recorder, films = Recorder(), [None, (b"gif", 7)]
    tracker = Tracker("x", lambda: recorder, lambda: films.pop(0) if films else None)
    tracker.show(STARTED)
    for step in range(3):
        tracker.show(events.Gauges(step, 0, {}))
    tracker.show(events.Metrics(update=1, env_steps=3, values={"loss/dyn": 2.0}))
    assert tracker.close() == ""
    assert [numbers.step for numbers in recorder.seen] == [0, 1, 2, 3]
    assert recorder.seen[1].values == {"progress/frames": 4.0, "progress/updates": 0.0}
    assert recorder.films == [(b"gif", 7)] and recorder.closed


def test_a_run_without_environments_is_tracked_over_its_updates() -> None:
    recorder = Recorder()
    tracker = Tracker("x", lambda: recorder)
    tracker.show(replace(STARTED, updates=100))
    tracker.show(events.Gauges(0, 7, {}))
    tracker.show(events.Metrics(update=8, env_steps=0, values={"loss/dyn": 2.0}))
    tracker.show(events.Evaluated(0, 9, (1.0,), (3,), 1.0))
    assert tracker.close() == ""
    assert [numbers.step for numbers in recorder.seen] == [7, 8, 9]


def test_one_that_hangs_is_left_and_what_it_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[threading.Thread] = []
    monkeypatch.setattr(aio, "leave", left.append)
    hold, told = threading.Event(), []

    class Hanging(Recorder):
        def numbers(self, values: Mapping[str, float], step: int) -> None:
            hold.wait(120)

    tracker = Tracker("x", Hanging, waiting=5)
    tracker.warn = told.append
    began = time.monotonic()
    for step in range(20):
        tracker.show(events.Gauges(step, 0, {}))
    said = tracker.close(0.2)
    assert time.monotonic() - began < 60, "nobody waits for it"
    assert "x did not end" in said and tracker.dropped >= 14
    assert told == ["x does not keep up: events beyond its queue are dropped"], "once"
    assert len(left) == 1
    hold.set()
    left[0].join(60)


def test_one_that_fails_is_said_once_and_gets_no_more(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ConnectionError("nobody is at home")

    run = make_run(tmp_path, "train.steps=80")
    run.tracker("wandb").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trackers.TRACKERS, "wandb", lambda run, config: fail())
        assert pipeline.main(run, plain=False, resume=False) == 0
    warnings = [e.message for e in read(run) if isinstance(e, events.Warned)]
    assert [text for text in warnings if "wandb" in text] == [
        "wandb failed and gets no more events: nobody is at home"
    ]


def test_the_newest_film_is_given_once_and_not_too_often(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    now, path = [0.0], tmp_path / "film.npz"
    films = FilmGif(path, lambda: now[0])
    assert films() is None

    def shoot(step: int) -> None:
        pixels = np.zeros((3, 2, 5, 8, 8, 1), np.uint8)
        pixels[1, :, 3] = 255
        meta = np.array(f'{{"env_steps": {step}}}')
        write(path, {"meta": meta, "image/image": pixels, "is_first": np.zeros((2, 5), bool)})

    shoot(40)
    found = films()
    assert found is not None and found[1] == 40
    (tmp_path / "x.gif").write_bytes(found[0])
    with image.open(tmp_path / "x.gif") as gif:
        assert gif.size == (3 * 96, 2 * 96)
    shoot(50)
    assert films() is None, "not too often"
    now[0] += 601
    again = films()
    assert again is not None and again[1] == 50
    now[0] += 601
    assert films() is None, "it is the same film"


# -- the command line ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_without_the_package_is_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    absent = lambda module: None if module == name else found(module)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    options = ["--log", name] if name != "tensorboard" else ["--tensorboard"]
    assert main(["train", "toy", *options, "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"pip install 'dreamer-async[{name}]'" in error
    assert not list(tmp_path.iterdir()), "nothing was created"


def test_an_unknown_tracker_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "toy", "--log", "visdom", "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "wandb" in error and "visdom" in error


SLOW_TO_CLOSE = """
import sys, time
from pathlib import Path
from dreamer_async.run import pipeline, trackers
from dreamer_async.store.run_dir import RunDir

class Slow:
    def __init__(self, run, config): pass
    def numbers(self, values, step): pass
    def film(self, gif, step): pass
    def close(self):
        print("closing", flush=True)
        time.sleep(600)

trackers.TRACKERS["wandb"] = Slow
sys.exit(pipeline.main(RunDir(Path(sys.argv[1])), plain=False, resume=False))
"""


def test_a_second_signal_ends_a_run_whose_tracker_does_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=1000000")
    run.tracker("wandb").mkdir()
    words = [sys.executable, "-c", SLOW_TO_CLOSE, str(run.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        wait_until(lambda: any(isinstance(e, events.Gauges) for e in read(run)))
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "closing\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(trackers.CLOSE_SECONDS / 2) == 130
    assert isinstance(read(run)[-1], events.RunFinished), "all was saved before"


# -- the trackers themselves -----------------------------------------------------------------


def tracked(root: Path, name: str) -> RunDir:
    """A run with images that was tracked, then resumed."""
    run = make_run(root, "train.steps=80", task="catch_pixels")
    run.tracker(name).mkdir()
    with pytest.MonkeyPatch.context() as patch:  # a tracker that is left behind ends the process
        patch.setattr(trackers, "CLOSE_SECONDS", 600.0)
        assert pipeline.main(run, plain=False, resume=False) == 0
        extend(run, "train.steps=120")
        assert pipeline.main(run, plain=False, resume=True) == 0
    failed = [e.message for e in read(run) if isinstance(e, events.Warned) and name in e.message]
    assert failed == []
    return run


def losses(run: RunDir) -> dict[int, float]:
    """The last loss of every step in the stream."""
    found = [event for event in read(run) if isinstance(event, events.Metrics)]
    return {event.env_steps: event.values["loss/dyn"] or 0.0 for event in found}


def test_tensorboard_has_the_numbers_of_the_stream(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tracked(tmp_path, "tensorboard")
    board = EventAccumulator(str(run.tracker("tensorboard")), size_guidance={"scalars": 0})
    board.Reload()
    seen = read(run)
    metrics = [e for e in seen if isinstance(e, events.Metrics)]
    scalars = board.Scalars("loss/dyn")
    assert [s.step for s in scalars] == [e.env_steps for e in metrics]
    assert [s.value for s in scalars] == pytest.approx([e.values["loss/dyn"] for e in metrics])
    scores = [e.score for e in seen if isinstance(e, events.Episode)]
    assert [s.value for s in board.Scalars("episode/score")] == pytest.approx(scores)
    assert "replay/fill" in board.Tags()["scalars"]
    names = {name for event in seen for name in getattr(event, "values", ())}
    assert names - set(meanings()) == {"loss/image"}, "a number without an explanation"


def test_tensorboard_shows_films(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path)
    run.tracker("tensorboard").mkdir()
    backend = trackers.Tensorboard(run, trackers_config(run))
    backend.film(b"GIF89a...", 30)
    backend.close()
    board = EventAccumulator(str(run.tracker("tensorboard")))
    board.Reload()
    [image] = board.Images("film")
    assert image.step == 30 and image.encoded_image_string == b"GIF89a..."


def trackers_config(run: RunDir) -> Any:
    from dreamer_async.store.summary import load_config

    return load_config(run)


def test_mlflow_has_the_numbers_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tracked(tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run.tracker('mlflow') / 'mlflow.db'}")
    tracked_id = (run.tracker("mlflow") / "run_id").read_text()
    history = client.get_metric_history(tracked_id, "loss/dyn")
    assert {m.step: m.value for m in history} == pytest.approx(losses(run))
    assert client.get_run(tracked_id).data.params["env.task"] == "catch_pixels"
    backend = trackers.Mlflow(run, trackers_config(run))
    backend.film(b"GIF89a", 30)
    assert [f.path for f in client.list_artifacts(tracked_id, "films")] == [
        "films/film-000000000030.gif"
    ]


def test_trackio_has_the_numbers_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run = tracked(tmp_path, "trackio")
    with sqlite3.connect(tmp_path / "trackio" / "dreamer-async.db") as base:
        rows = base.execute(
            "select step, metrics from metrics where run_name = ?", [known_as(run, "trackio")]
        )
        found = {}
        for step, metrics in rows.fetchall():
            if "loss/dyn" in (values := json.loads(metrics)):
                found[step] = values["loss/dyn"]
    assert found == pytest.approx(losses(run))


def known_as(run: RunDir, tracker: str) -> str:
    return trackers.own_name(run, run.tracker(tracker))


def test_runs_of_one_name_stay_apart_and_each_keeps_its_own(tmp_path: Path) -> None:
    names = set()
    for root in ("a", "b"):
        run = RunDir(tmp_path / root / "20260101-000000-pong")
        run.tracker("wandb").mkdir(parents=True)
        names |= {known_as(run, "wandb") for _ in range(2)}
    assert len(names) == 2 and all(name.startswith("20260101-000000-pong-") for name in names)
    old = RunDir(tmp_path / "c" / "20260101-000000-pong")
    (old.tracker("wandb") / "wandb").mkdir(parents=True)
    assert known_as(old, "wandb") == old.name, "as before there were such names"


def test_wandb_has_the_numbers_of_the_stream_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip("wandb")
    run = tracked(tmp_path, "wandb")
    found: dict[int, float] = {}
    for file in sorted(run.tracker("wandb").glob("wandb/offline-run-*/*.wandb")):
        found |= dict(wandb_history(file))
    assert found == pytest.approx(losses(run))
    words = ["runs", "rm", run.name, "--yes", "--runs-dir", str(run.path.parent)]
    assert main(words) == 0 and not run.path.exists(), "with the links that it makes"


def wandb_history(file: Path) -> list[tuple[int, float]]:
    """(step, loss/dyn) of every row that has it in an offline run."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found = []
    for data in leveldb_records(file.read_bytes()[7:]):
        record = proto.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if "loss/dyn" in row:
                found.append((int(row["env_steps"]), row["loss/dyn"]))
    return found


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format; the 7 bytes in front of the first count to its block."""
    place, block, record = 7, 32768, b""
    data = bytes(7) + data
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            yield record
            record = b""
