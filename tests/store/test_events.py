"""The event stream: what is written is read, and nothing else stops a reader or a writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hostile import exchanged, ill_typed
from hypothesis import given
from hypothesis import strategies as st

from dreamer_async.config.schema import LARGEST, field_types
from dreamer_async.store import events
from dreamer_async.store.events import (
    EVENT_TYPES,
    MAX_LINE,
    Episode,
    Event,
    EventReader,
    EventWriter,
    Gauges,
    Metrics,
    Record,
    Warned,
    decode_line,
    encode_line,
    next_generation,
    read_events,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WHOLE = st.integers(-LARGEST, LARGEST)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
BY_TYPE: Mapping[Any, st.SearchStrategy[Any]] = {
    int: WHOLE,
    float: FLOATS,
    bool: st.booleans(),
    str: TEXT,
    float | None: st.none() | FLOATS,
    tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
    tuple[int, ...]: st.lists(WHOLE, max_size=3).map(tuple),
    tuple[float, ...]: st.lists(FLOATS, max_size=3).map(tuple),
    Mapping[str, float | None]: st.dictionaries(TEXT, st.none() | FLOATS, max_size=4),
}
ANY_EVENT: st.SearchStrategy[Event] = st.one_of(
    [
        st.builds(kind, **{name: BY_TYPE[t] for name, t in field_types(kind).items()})
        for kind in EVENT_TYPES.values()
    ]
)


def warned(number: int) -> Warned:
    return Warned("info", str(number))


def messages(records: list[Record]) -> list[str]:
    return [r.event.message for r in records if isinstance(r.event, Warned)]


def line(event: Event, generation: int = 0) -> bytes:
    return encode_line(event, 1.0, 2.0, generation)


def test_every_event_has_a_name_and_prose() -> None:
    assert " ".join(EVENT_TYPES) == (
        "run_started phase_changed metrics episode gauges checkpointed warned resumed controlled "
        "evaluated run_finished"
    )
    assert all(kind.__doc__ for kind in EVENT_TYPES.values())


@given(ANY_EVENT, FLOATS, FLOATS, st.integers(0, LARGEST))
def test_a_line_is_one_line_of_json_and_reads_back(
    event: Event, clock: float, mono: float, generation: int
) -> None:
    data = encode_line(event, clock, mono, generation)
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert decode_line(data) == Record(event, clock, mono, generation)
    flat = json.loads(data)
    assert {"type", "time", "mono", "generation"} | {f.name for f in fields(event)} == set(flat)


def test_metrics_are_flat_and_non_finite_numbers_are_null() -> None:
    values = {"loss/image": 1.5, "return/S": float("nan"), "opt/grad_norm": float("-inf")}
    data = json.loads(line(Metrics(7, 100, values)))
    assert data["type"] == "metrics"
    assert data["values"] == {"loss/image": 1.5, "return/S": None, "opt/grad_norm": None}


def test_writer_appends_and_reader_follows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    ticks = iter(range(100))
    with EventWriter(path, 3, clock=lambda: float(next(ticks)), monotonic=lambda: 0.5) as writer:
        writer.emit(warned(0))
        first, offset = read_events(path)
        writer.emit(warned(1))
        second, end = read_events(path, offset)
    assert first == [Record(warned(0), 0.0, 0.5, 3)]
    assert second == [Record(warned(1), 1.0, 0.5, 3)]
    assert read_events(path, end) == ([], end)


def test_reader_of_a_missing_or_empty_file_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    path.touch()
    assert read_events(path) == ([], 0)


def test_a_line_in_the_making_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = line(warned(1))
    path.write_bytes(line(warned(0)) + whole[:10])
    reader = EventReader(path)
    assert messages(reader.read()) == ["0"]
    path.write_bytes(line(warned(0)) + whole)
    assert messages(reader.read()) == ["1"]
    assert reader.skipped == 0


def test_a_torn_tail_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(3):
        with EventWriter(path, number) as writer:
            writer.emit(warned(number))
        with open(path, "ab") as file:
            file.write(line(warned(99))[:-20])
    reader = EventReader(path)
    assert messages(reader.read()) == ["0", "1", "2"]
    assert reader.skipped == 2  # the third may still be finished


def test_a_file_that_shrank_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(warned(0)) * 3)
    reader = EventReader(path)
    assert len(reader.read()) == 3
    path.write_bytes(line(warned(1)))
    assert messages(reader.read()) == ["1"]


def test_reading_in_pieces_gives_the_same_as_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line(warned(i)) for i in range(50)))
    reader, pieces = EventReader(path), []
    while batch := reader.read(limit=200):
        pieces += batch
    assert pieces == read_events(path)[0]
    assert len(pieces) == 50


JUNK = [
    b"\n",
    b"{\n",
    b"null\n",
    b"[]\n",
    b'"text"\n',
    b"\x00\x00\x00\x00\n",
    b"\xff\xfe\x00a\n",
    b"[" * 200_000 + b"\n",
    b'{"a":' * 100_000 + b"\n",
    b'{"type":"warned"}\n',
    b'{"type":["warned"],"time":1,"mono":1,"generation":0}\n',
    b'{"type":{},"time":1,"mono":1,"generation":0}\n',
    b'{"type":"new_kind","time":1,"mono":1,"generation":0}\n',
    b'{"type":"warned","time":"1","mono":1,"generation":0,"level":"info","message":"x"}\n',
    b'{"type":"warned","time":1,"mono":1,"generation":0.5,"level":"info","message":"x"}\n',
    b'{"type":"warned","time":1e999,"mono":1,"generation":0,"level":"info","message":"x"}\n',
    b'{"type":"warned","time":1,"mono":1,"generation":0,"level":"info","message":3}\n',
    b'{"type":"warned","time":1,"mono":1,"generation":0,"level":"info","message":"\\ud800"}\n',
    b'{"type":"metrics","time":1,"mono":1,"generation":0,"update":1,"env_steps":1,"values":[]}\n',
    b'{"type":"episode","time":1,"mono":1,"generation":0,"env_steps":' + b"9" * 9000 + b"}\n",
    b"x" * (MAX_LINE + 5) + b"\n",
    b"x" * (3 * MAX_LINE) + b"\n",
]


def test_junk_between_lines_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with open(path, "wb") as file:
        for number, junk in enumerate(JUNK):
            file.write(line(warned(number)) + junk)
    reader = EventReader(path)
    found: list[Record] = []
    while batch := reader.read():
        found += batch
    assert messages(found) == [str(i) for i in range(len(JUNK))]
    assert reader.skipped >= len(JUNK) - 1  # a blank line is nothing, a long one is several
    assert reader.offset == path.stat().st_size


def test_later_fields_are_ignored_and_nan_in_a_foreign_file_is_none() -> None:
    head = b'{"type":"gauges","time":1,"mono":2,"generation":0,"env_steps":1,"updates":2,'
    record = decode_line(head + b'"values":{"a":NaN,"b":1e999,"c":3},"new":{"x":[1]}}')
    assert record.event == Gauges(1, 2, {"a": None, "b": None, "c": 3.0})


@given(st.binary(max_size=200))
def test_random_bytes_never_break_a_reader(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.jsonl"
    path.write_bytes(data + b"\n" + line(warned(1)))
    records, offset = read_events(path)
    assert messages(records)[-1:] == ["1"]
    assert offset == path.stat().st_size


@given(ANY_EVENT, st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_is_skipped_or_still_well_typed(event: Event, at: int, byte: int) -> None:
    data = bytearray(line(event))
    data[at % len(data)] = byte
    try:
        record = decode_line(bytes(data))
    except ValueError:
        return
    assert well_typed(record)
    again = encode_line(record.event, record.time, record.mono, record.generation)
    assert decode_line(again) == record


def well_typed(record: Record) -> bool:
    head = all(type(number) is float for number in (record.time, record.mono))
    whole = type(record.generation) is int
    return head and whole and ill_typed(type(record.event), record.event) == []


SAMPLES: Mapping[Any, Any] = {
    int: 3,
    float: 0.5,
    bool: True,
    str: "x",
    float | None: 0.5,
    tuple[str, ...]: ("x",),
    tuple[int, ...]: (3,),
    tuple[float, ...]: (0.5,),
    Mapping[str, float | None]: {"x": 0.5},
}


@pytest.mark.parametrize("kind", EVENT_TYPES.values())
def test_every_field_refuses_every_other_type(kind: type[Event]) -> None:
    """True is no number, 1 is no truth; only a whole number may stand for one that need not be."""
    event = kind(**{name: SAMPLES[t] for name, t in field_types(kind).items()})
    refused = 0
    for data in exchanged(json.loads(line(event))):
        try:
            record = decode_line(json.dumps(data).encode())
        except ValueError:
            refused += 1
        else:
            assert well_typed(record), record
    assert well_typed(decode_line(line(event))) and refused > 5 * len(fields(kind))


def test_generations_count_up_over_torn_tails(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert next_generation(path) == 0
    path.write_bytes(line(warned(0), 0) + line(warned(1), 4) + line(warned(2), 5)[:-9])
    assert next_generation(path) == 5
    path.write_bytes(b"junk\n")
    assert next_generation(path) == 0


def test_generation_of_a_long_file_comes_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_LINE", 200)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(line(warned(i), i) for i in range(100)) + b"x" * 2000 + b"\n")
    assert next_generation(path) == 100


def test_a_full_disk_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "open_regular", os.open)  # a device would be refused
    with EventWriter(Path("/dev/full"), 0) as writer:
        for number in range(3):
            writer.emit(warned(number))
        assert writer.dropped == 3


def test_a_line_that_no_reader_would_take_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path, 0) as writer:
        writer.emit(Warned("info", "x" * MAX_LINE))
        writer.emit(warned(1))
        assert writer.dropped == 1
    assert messages(read_events(path)[0]) == ["1"]


FULL_THEN_FREE = """
import resource, sys
from pathlib import Path
from dreamer_async.store.events import EventWriter, Warned
writer = EventWriter(Path(sys.argv[1]), 0)
writer.emit(Warned("info", "before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
writer.emit(Warned("info", "cut in the middle"))
writer.emit(Warned("info", "refused"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.emit(Warned("info", "after"))
print(writer.dropped)
"""


@pytest.mark.faults
def test_a_disk_that_fills_up_and_empties_costs_only_the_lines_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_THEN_FREE, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"
    reader = EventReader(path)
    assert messages(reader.read()) == ["before", "after"]
    assert reader.skipped == 1


def test_threads_share_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventWriter(path, 0) as writer:

        def write(thread: int) -> None:
            for number in range(200):
                writer.emit(Episode(number, thread, 0.0, 1))

        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [r.event for r in read_events(path)[0] if isinstance(r.event, Episode)]
    for thread in range(4):
        assert [e.env_steps for e in found if e.env_id == thread] == list(range(200))


WRITE_AND_ACKNOWLEDGE = """
import os, sys
from pathlib import Path
from dreamer_async.store.events import EventWriter, Warned
writer = EventWriter(Path(sys.argv[1]), int(sys.argv[2]))
number = 0
while True:
    writer.emit(Warned("info", f"{number}:" + "x" * 3000))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


BUFFERED = """
import os, sys
from dreamer_async.store.events import Warned, encode_line
with open(sys.argv[1], "ab") as file:
    number = 0
    while True:
        event = Warned("info", f"{number}:" + "x" * 3000)
        file.write(encode_line(event, 0.0, 0.0, int(sys.argv[2])))
        os.write(1, b"%d\\n" % number)
        number += 1
"""
"""The control: lines wait in the memory of the process for others to come."""


def killed_writer(script: str, path: Path, generation: int) -> int:
    """Let a writer acknowledge some lines, kill it; returns how many it has acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", script, path, str(generation)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    seen = [child.stdout.readline() for _ in range(50 + 37 * generation)]
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split(b"\n")[:-1]
    child.wait()
    child.stdout.close()
    return len(seen) + len(rest)


def lines_of(path: Path, generation: int) -> int:
    """How many whole lines of a writer there are; they are the first ones, in order."""
    reader, records = EventReader(path), list[Record]()
    while batch := reader.read():
        records += batch
    texts = messages([r for r in records if r.generation == generation])
    numbers = [int(text.partition(":")[0]) for text in texts]
    assert numbers == list(range(len(numbers)))
    return len(numbers)


@pytest.mark.faults
def test_kill_9_loses_no_acknowledged_line(tmp_path: Path) -> None:
    """Writers on one file, each killed at some moment; the next one heals the tail."""
    path = tmp_path / "events.jsonl"
    acknowledged = [killed_writer(WRITE_AND_ACKNOWLEDGE, path, life) for life in range(8)]
    for generation, count in enumerate(acknowledged):
        assert lines_of(path, generation) >= count


@pytest.mark.faults
def test_a_writer_that_keeps_lines_back_is_caught(tmp_path: Path) -> None:
    for life in range(100):
        path = tmp_path / str(life)
        acknowledged = killed_writer(BUFFERED, path, life)
        if lines_of(path, life) < acknowledged:
            return
    raise AssertionError("it never lost a line")
