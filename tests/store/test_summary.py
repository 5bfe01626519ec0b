"""What `runs` says of a run, from its settings and its stream."""

from __future__ import annotations

from pathlib import Path

from tiny_run import STARTED, make_run

from dreamer_async.python.run import Run
from dreamer_async.store.events import (
    MAX_LINE,
    Episode,
    EventWriter,
    Gauges,
    PhaseChanged,
    Resumed,
    RunFinished,
    Warned,
)
from dreamer_async.store.summary import disk_usage, last_records, summarize


def test_frames_count_the_action_repeat_whatever_was_said_first(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(Warned("warning", "updates are slower"))
        writer.emit(STARTED)
        writer.emit(Gauges(1000, 10, {}))
    assert STARTED.frames_per_step == 4
    assert (summarize(run).env_steps, summarize(run).frames) == (1000, 4000)


def test_episodes_that_a_resume_has_lost_count_no_more(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        for step, score in ((100, 1.0), (200, 3.0), (300, 99.0)):
            writer.emit(Episode(step, 0, score, 100))
        writer.emit(Resumed("step-200", 200, 0, 0.0))
        writer.emit(Episode(310, 0, 5.0, 110))
    assert summarize(run).recent_return == 3.0
    returns = Run(run).returns()
    assert (returns.env_steps.tolist(), returns.returns.tolist()) == ([100, 200, 310], [1, 3, 5])


def test_a_return_is_found_behind_a_long_pause(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(PhaseChanged("paused", 100, 5))
        writer.emit(Episode(100, 0, 4.0, 100))
        for _ in range(6):
            writer.emit(Warned("warning", "x" * (MAX_LINE - 1000)))
    assert not [r for r in last_records(run) if isinstance(r.event, Episode)], "control"
    assert summarize(run).recent_return == 4.0


def test_replays_of_ranks_elsewhere_are_counted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    run, before = make_run(tmp_path), 0
    for rank in range(2):
        run.rank(rank).path.mkdir(parents=True)
        before = disk_usage(run, str(elsewhere))
        run.rank(rank).replay_paths(str(elsewhere))[0].write_bytes(bytes(8192))
        assert disk_usage(run, str(elsewhere)) >= before + 8192


def test_the_end_of_a_long_stream_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        for _ in range(10):
            writer.emit(Warned("warning", "x" * (MAX_LINE - 1000)))
        writer.emit(RunFinished("completed", 7, 1, 0))
    read = [record.event for record in last_records(run)]
    assert 1 < len(read) < 6 and isinstance(read[-1], RunFinished)
