"""The files of a replay: who may open them, and refusals that leave nothing behind."""

from __future__ import annotations

import errno
import os
import struct
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from experience import FIELDS, Experience, assert_rows_are_windows, make_spec, sample, starts

from dreamer_async.replay.layout import ring_bytes
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field, ReplaySpaceError, RingMismatch

# -- opening ---------------------------------------------------------------------------------


def test_each_writer_raises_the_generation_and_readers_do_not(paths: tuple[Path, Path]) -> None:
    Replay.create(*paths, make_spec(), seed=0).close()
    generations = []
    for readonly in (False, True, True, False):
        with Replay.open(*paths, make_spec(), seed=0, readonly=readonly) as replay:
            generations.append(replay.generation)
    assert generations == [2, 2, 2, 3]


def test_a_reader_sees_what_the_writer_adds(replay: Replay, paths: tuple[Path, Path]) -> None:
    before = (paths[0].read_bytes(), paths[1].read_bytes())
    with Replay.open(*paths, make_spec(), seed=0, readonly=True) as reader:
        assert (paths[0].read_bytes(), paths[1].read_bytes()) == before
        Experience(replay).fill(9)
        assert reader.steps == 27
        out = sample(reader, 16)
        assert_rows_are_windows(out)
        with pytest.raises(AssertionError):
            Experience(reader).add(0)
    with pytest.raises(FileNotFoundError):
        Replay.open(paths[0], paths[0].with_name("none"), make_spec(), seed=0, readonly=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_envs": 4}, "num_envs 3"),
        ({"capacity": 21}, "capacity 20"),
        ({"fields": FIELDS | {"frame": Field((8, 8, 1), "uint8")}}, "frame"),
        ({"fields": FIELDS | {"reward": Field((), "float64")}}, "reward"),
        ({"fields": {k: v for k, v in FIELDS.items() if k != "vector"}}, "vector"),
    ],
)
def test_a_ring_of_other_settings_is_refused(
    paths: tuple[Path, Path], change: dict[str, Any], reason: str
) -> None:
    Replay.create(*paths, make_spec(), seed=0).close()
    before = (paths[0].read_bytes(), paths[1].read_bytes())
    with pytest.raises(RingMismatch, match=reason):
        Replay.open(*paths, make_spec(**change), seed=0)
    assert (paths[0].read_bytes(), paths[1].read_bytes()) == before


def test_another_model_size_keeps_the_ring_and_drops_the_latents(paths: tuple[Path, Path]) -> None:
    with Replay.create(*paths, make_spec(), seed=0) as replay:
        Experience(replay).fill(9)
    with Replay.open(*paths, make_spec(deter=8), seed=0) as replay:
        assert_rows_are_windows(out := sample(replay))
        assert not out.deter.any()


def test_a_latent_file_is_not_a_ring(paths: tuple[Path, Path]) -> None:
    Replay.create(*paths, make_spec(), seed=0).close()
    with pytest.raises(RingMismatch, match="kind 'replay latents'"):
        Replay.open(paths[1], paths[0], make_spec(), seed=0)


@pytest.mark.parametrize(("reserved", "head"), [(-1, -1), (4, 5), (7, 5), (1 << 62, 0)])
def test_damaged_cursors_are_refused(paths: tuple[Path, Path], reserved: int, head: int) -> None:
    Replay.create(*paths, make_spec(num_envs=1), seed=0).close()
    with paths[0].open("r+b") as file:
        file.seek(4096)
        file.write(struct.pack("<qq", reserved, head))
    with pytest.raises(RingMismatch, match="cursors"):
        Replay.open(*paths, make_spec(num_envs=1), seed=0)


def test_a_step_that_was_begun_and_not_finished_stays_hidden(paths: tuple[Path, Path]) -> None:
    """A killed add has spoiled the oldest slot; `reserved` remembers it until it is rewritten."""
    spec = make_spec(num_envs=1)
    replay = Replay.create(*paths, spec, seed=0)
    feed = Experience(replay)
    feed.fill(31)
    replay._cursors.reserved[0] += 1
    replay._columns["action"][0, 31 % 20] = -1
    replay.close()
    with Replay.open(*paths, spec, seed=0) as replay:
        assert (replay.steps, replay.windows) == (31, 15)
        assert min(start for _, start in starts(sample(replay, 300))) == 12
        feed.replay = replay
        feed.add(0)
        assert (replay.steps, replay.windows) == (32, 16)
        assert_rows_are_windows(sample(replay, 300))


def test_a_ring_needs_room_for_more_than_one_window(paths: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="at least 6"):
        Replay.create(*paths, make_spec(capacity=5), seed=0)
    with Replay.create(*paths, make_spec(capacity=6), seed=0) as replay:
        Experience(replay).fill(30)
        assert_rows_are_windows(sample(replay))


@pytest.mark.parametrize(
    "change", [{"deter": 0}, {"num_envs": 0}, {"length": 1}, {"fields": {}}, {"capacity": -1}]
)
def test_a_spec_of_nothing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be at least|fields need"):
        make_spec(**change)


def test_stored_spec_tells_the_capacity(paths: tuple[Path, Path]) -> None:
    Replay.create(*paths, make_spec(), seed=0).close()
    stored = Replay.stored_spec(paths[0])
    assert (stored.num_envs, stored.capacity) == (3, 20)


# -- refusals that leave nothing behind ------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("file", [1, 2])
def test_a_full_disk_leaves_nothing_behind(
    paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    calls = 0
    real = os.posix_fallocate

    def allocate(fd: int, offset: int, size: int) -> None:
        nonlocal calls
        calls += 1
        if calls == file:
            raise OSError(errno.ENOSPC, "full")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    with pytest.raises(ReplaySpaceError, match=r"needs .* bytes") as caught:
        Replay.create(*paths, make_spec(), seed=0)
    assert caught.value.needed == ring_bytes(make_spec())[file - 1]
    assert caught.value.free > 0
    assert list(tmp_path.iterdir()) == []


def test_both_files_have_to_fit_the_same_disk(
    paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(ring_bytes(make_spec()))
    room = namedtuple("room", "f_bavail f_frsize")(needed - 1, 1)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    with pytest.raises(ReplaySpaceError) as caught:
        Replay.create(*paths, make_spec(), seed=0)
    assert (caught.value.needed, caught.value.free) == (needed, needed - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_file_size_limit_is_a_space_error_too(paths: tuple[Path, Path], tmp_path: Path) -> None:
    """The real thing, without root: RLIMIT_FSIZE makes the allocation fail with EFBIG."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(ReplaySpaceError):
            Replay.create(*paths, make_spec(), seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_latents_without_their_ring_do_not_stand_in_the_way(paths: tuple[Path, Path]) -> None:
    Replay.create(*paths, make_spec(), seed=0).close()
    paths[0].unlink()
    with Replay.create(*paths, make_spec(deter=9), seed=0) as replay:
        assert replay.steps == 0


def test_create_does_not_touch_an_existing_replay(paths: tuple[Path, Path]) -> None:
    with Replay.create(*paths, make_spec(), seed=0) as replay:
        Experience(replay).fill(9)
    with pytest.raises(FileExistsError):
        Replay.create(*paths, make_spec(), seed=0)
    with Replay.open(*paths, make_spec(), seed=0) as replay:
        assert replay.steps == 27
