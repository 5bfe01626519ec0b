"""Following a file: torn lines, rotation, junk, no files; a long one from its newest part on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from dreamer_async.store.events import (
    MAX_LINE,
    Event,
    Gauges,
    Metrics,
    PhaseChanged,
    Resumed,
    RunFinished,
    encode_line,
)
from dreamer_async.tui.read.progress import Phase, Trainer, eta_seconds, goal, phase
from dreamer_async.tui.read.seek import last_before, seek_generation
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.tail import Tail
from dreamer_async.tui.read.view import RunView
from tests.tui.test_state import started


def line(update: int) -> bytes:
    return encode_line(Metrics(update, update, {"loss/image": 1.0}), 0.0, 0.0, 0)


def updates(tail: Tail, limit: int = 1 << 20) -> list[int]:
    events = [record.event for record in tail.read(limit)]
    return [event.update for event in events if isinstance(event, Metrics)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_a_missing_file_may_appear(path: Path) -> None:
    tail = Tail(path)
    assert updates(tail) == [] and not tail.behind
    append(path, line(1))
    assert updates(tail) == [1]
    assert updates(tail) == []


def test_a_torn_line_waits_for_its_end(path: Path) -> None:
    tail, data = Tail(path), line(1) + line(2)
    seen: list[int] = []
    for end in range(1, len(data) + 1):
        append(path, data[end - 1 : end])
        seen += updates(tail)
        assert len(seen) == data[:end].count(b"\n")
    assert seen == [1, 2] and tail.skipped == 0


def test_every_split_gives_the_same_records(path: Path) -> None:
    data = b"".join(line(index) for index in range(20))
    append(path, data)
    for limit in (1, 7, 100, 1 << 20):
        tail, seen = Tail(path), []
        while not seen or tail.behind:
            seen += updates(tail, limit)
        assert seen == list(range(20))
        tail.close()


def test_reading_is_bounded(path: Path) -> None:
    append(path, b"".join(line(index) for index in range(1000)))
    tail = Tail(path)
    assert len(updates(tail, 1000)) < 20
    assert tail.behind and tail.offset == 1000


def test_junk_is_skipped_and_counted(path: Path) -> None:
    append(path, line(1) + b'{"type":"metr\n\nnull\n\xff\xfe\n{"type":"unknown"}\n' + line(2))
    tail = Tail(path)
    assert updates(tail) == [1, 2]
    assert tail.skipped == 4


def test_a_replaced_file_is_drained_and_then_read_from_its_start(path: Path) -> None:
    tail = Tail(path)
    append(path, line(1))
    assert updates(tail) == [1]
    append(path, line(2))
    path.rename(path.with_suffix(".old"))
    append(path, line(3))
    assert updates(tail) == [2], "the rest of the old file"
    assert tail.restarts == 0
    assert updates(tail) == [3]
    assert tail.restarts == 1


def test_a_deleted_file_may_come_back(path: Path) -> None:
    tail = Tail(path)
    append(path, line(1))
    assert updates(tail) == [1]
    path.unlink()
    assert updates(tail) == []
    append(path, line(2))
    assert updates(tail) == [2]
    assert tail.restarts == 1


def test_a_shortened_file_is_read_from_its_start(path: Path) -> None:
    tail = Tail(path)
    append(path, line(1) + line(2) + line(3)[:10])
    assert updates(tail) == [1, 2]
    path.write_bytes(line(4))
    assert updates(tail) == [4], "and the torn rest of the old content is forgotten"
    assert tail.restarts == 1


def test_a_line_without_end_does_not_fill_the_memory(path: Path) -> None:
    tail = Tail(path)
    for _ in range(5):
        append(path, b"x" * MAX_LINE)
        assert updates(tail, 2 * MAX_LINE) == []
        assert len(tail._rest) < MAX_LINE
    append(path, b"\n" + line(1))
    assert updates(tail) == [1]
    assert tail.skipped == 1


def test_what_is_no_regular_file_is_not_read(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    assert updates(Tail(path)) == []
    path.unlink()
    (tmp_path / "other").write_bytes(line(1))
    path.symlink_to(tmp_path / "other")
    assert updates(Tail(path)) == []
    path.unlink()
    path.mkdir()
    assert updates(Tail(path)) == []


# --- a long history, of which the newest part is read first ------------------------------------


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
