"""What `runs` says of a run, from its settings and its stream."""

from __future__ import annotations

from pathlib import Path

from tiny_run import STARTED, make_run

from dreamer_async.store.events import MAX_LINE, EventWriter, Gauges, RunFinished, Warned
from dreamer_async.store.summary import last_records, summarize


def test_frames_count_the_action_repeat_whatever_was_said_first(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        writer.emit(Warned("warning", "updates are slower"))
        writer.emit(STARTED)
        writer.emit(Gauges(1000, 10, {}))
    assert STARTED.frames_per_step == 4
    assert (summarize(run).env_steps, summarize(run).frames) == (1000, 4000)


def test_the_end_of_a_long_stream_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with EventWriter(run.events_path, 0) as writer:
        for _ in range(10):
            writer.emit(Warned("warning", "x" * (MAX_LINE - 1000)))
        writer.emit(RunFinished("completed", 7, 1, 0))
    read = [record.event for record in last_records(run)]
    assert 1 < len(read) < 6 and isinstance(read[-1], RunFinished)
