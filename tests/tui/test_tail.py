"""Following a file: torn lines, rotation, truncation, junk and things that are no files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dreamer_async.store.events import MAX_LINE, Metrics, encode_line
from dreamer_async.tui.read.tail import Tail


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
