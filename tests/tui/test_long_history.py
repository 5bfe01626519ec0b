"""A long history, of which the newest part is read first: what is said of the run until then."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from dreamer_async.store.events import (
    Event,
    Gauges,
    PhaseChanged,
    Resumed,
    RunFinished,
    encode_line,
)
from dreamer_async.tui.read.progress import Phase, Trainer, eta_seconds, goal, phase
from dreamer_async.tui.read.seek import last_before, seek_generation
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.view import RunView
from tests.tui.test_state import started

SECONDS = 20.0
"""Between two events."""
HOURS = 5


def beats(first: int, count: int) -> list[Event]:
    """What a trainer says while nothing changes, four steps an update."""
    values = {f"stage/{n}": 0.5 for n in range(9)}
    return [Gauges(4 * n, n, values) for n in range(first, first + count)]


def lasting(hours: float, first: int = 0) -> list[Event]:
    return beats(first, round(3600 * hours / SECONDS))


def write(path: Path, *trainers: Iterable[Event]) -> None:
    lines, number = [], 0
    for generation, events in enumerate(trainers):
        for event in events:
            lines.append(encode_line(event, 1e9 + SECONDS * number, SECONDS * number, generation))
            number += 1
    (path / "events.jsonl").write_bytes(b"".join(lines))


def early_view(path: Path) -> RunView:
    """What the dashboard knows when the newest hour has been read, and no more."""
    source = Source(path)
    source.open()
    source.read_piece()
    assert source._newest is not None and not source._newest.behind
    assert not source.caught_up
    view = source.view
    source.close()
    return view


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of some hundred kilobytes are long ones."""
    monkeypatch.setattr("dreamer_async.tui.read.source.LONG_BYTES", 1 << 16)


START = [started(steps=10_000), PhaseChanged("prefill", 0, 0)]
TRAINING = PhaseChanged("training", 0, 0)


def test_a_run_that_has_trained_for_hours_trains_and_ends_some_time(tmp_path: Path) -> None:
    write(tmp_path, [*START, *beats(0, 3), TRAINING, *lasting(HOURS)])
    view = early_view(tmp_path)
    assert phase(view, Trainer(alive=True)) == Phase("training")
    assert eta_seconds(view) is not None


def test_a_run_that_was_resumed_hours_ago_shows_what_it_was_resumed_with(tmp_path: Path) -> None:
    first = [*START, TRAINING, *lasting(1), RunFinished("stopped", 720, 180, 0)]
    again = [started(steps=90_000), Resumed("", 720, 180, 0.0), PhaseChanged("prefill", 720, 180)]
    write(tmp_path, first, [*again, *beats(180, 9), TRAINING, *lasting(HOURS, 189)])
    view = early_view(tmp_path)
    assert phase(view, Trainer(alive=True)) == Phase("training")
    assert goal(view).planned == 90_000 and view.resumed is not None
    assert eta_seconds(view) is not None


def test_a_run_that_was_paused_hours_ago_is_paused(tmp_path: Path) -> None:
    paused = [PhaseChanged("paused", 720, 180), *[Gauges(720, 180, {"cpu/percent": 1.0})] * 600]
    write(tmp_path, [*START, TRAINING, *lasting(HOURS), *paused])
    view = early_view(tmp_path)
    since = 1e9 + SECONDS * (3 + len(lasting(HOURS)))
    assert phase(view, Trainer(alive=True)) == Phase("paused", since)


def test_a_phase_of_which_nothing_is_found_is_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamer_async.tui.read.seek.BACK", 4096)
    write(tmp_path, [*START, *lasting(HOURS)])
    assert early_view(tmp_path).phase == "training"


def test_the_last_event_of_a_kind_is_found_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    write(tmp_path, [*START, *beats(0, 2), TRAINING, *beats(2, 5), PhaseChanged("paused", 9, 2)])
    data = path.read_bytes()
    wanted = data.rindex(b'{"type":"phase_changed"')
    for block in (1, 7, 100, 1 << 20):
        monkeypatch.setattr("dreamer_async.tui.read.seek.BLOCK", block)
        for stop, found in ((len(data), "paused"), (wanted, "training"), (wanted + 9, "training")):
            record = last_before(path, "phase_changed", stop)
            assert record is not None and isinstance(record.event, PhaseChanged)
            assert record.event.phase == found, (block, stop)
    assert last_before(path, "evaluated", len(data)) is None
    assert last_before(tmp_path / "none", "evaluated", 9) is None


def test_the_place_where_a_trainer_began_is_found(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(tmp_path, lasting(HOURS), lasting(HOURS), lasting(HOURS))
    data = path.read_bytes()
    lines = [0, data.index(b'"generation":1'), data.index(b'"generation":2')]
    begins = [data.rfind(b"\n", 0, place) + 1 for place in lines]
    for begin in begins:
        found = seek_generation(path, begin + 150_000 if begin else 150_000)
        assert begin - 70_000 <= found <= begin, "a little before"
    assert seek_generation(tmp_path / "none", 9) == 0
