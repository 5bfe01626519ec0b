"""Event files for TensorBoard: the numbers of the event stream under the same names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_run import STARTED, extend, make_run, read

from dreamer_async.cli import main
from dreamer_async.run import pipeline
from dreamer_async.run.tensorboard import TensorBoard
from dreamer_async.store import events
from dreamer_async.tui.show.glossary import meanings


def test_a_run_without_the_package_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    absent = lambda name: None if name == "tensorboard" else found(name)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert main(["train", "toy", "--tensorboard", "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'dreamer-async[tensorboard]'" in error
    assert not list(tmp_path.iterdir()), "nothing was created"


def test_the_numbers_of_the_stream_are_in_the_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path, "train.steps=80")
    run.tensorboard.mkdir()
    assert pipeline.main(run, plain=False, resume=False) == 0
    extend(run, "train.steps=120")
    assert pipeline.main(run, plain=False, resume=True) == 0
    board = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0})
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
    assert names - set(meanings()) == {"loss/vector"}, "a number without an explanation"


def test_frames_are_agent_steps_times_the_action_repeat(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    board.show(STARTED)
    board.show(events.Gauges(250, 4, {}))
    board.close()
    seen = EventAccumulator(str(tmp_path))
    seen.Reload()
    assert [(s.step, s.value) for s in seen.Scalars("progress/frames")] == [(250, 1000.0)]
