"""The replay: windows, annotation, contexts, the online queue, checkpoints and refusals."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dreamer_async.replay import Replay
from dreamer_async.replay_layout import RingSpec, SampleBuffers, ring_bytes
from dreamer_async.ring import Field, ReplaySpaceError, RingMismatch

FIELDS = {
    "frame": Field((4, 4, 1), "uint8"),
    "vector": Field((3,), "float32"),
    "action": Field((), "int32"),
    "reward": Field((), "float32"),
    "is_first": Field((), "bool"),
    "is_last": Field((), "bool"),
    "is_terminal": Field((), "bool"),
}


def make_spec(**changes: Any) -> RingSpec:
    values = {
        "fields": FIELDS,
        "deter": 4,
        "stoch": 3,
        "num_envs": 3,
        "capacity": 20,
        "length": 5,
    }
    return RingSpec(**(values | changes))


class Experience:
    """Feeds a replay with steps that say which environment and step they are."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.count = np.zeros(replay.spec.num_envs, np.int64)

    def add(self, *env_ids: int, first: bool = False, last: bool = False) -> None:
        env = np.array(env_ids, np.int32)
        self.replay.add(env, *step_data(env, self.count[env], first, last))
        self.count[env] += 1

    def fill(self, steps: int) -> None:
        for _ in range(steps):
            self.add(*range(self.replay.spec.num_envs))


def step_data(
    env: np.ndarray, step: np.ndarray, first: bool, last: bool
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rows = len(env)
    code = env * 1000 + step
    fields = {
        "frame": np.broadcast_to(code.astype(np.uint8)[:, None, None, None], (rows, 4, 4, 1)),
        "vector": np.stack([env, step, code], 1).astype(np.float32),
        "action": code.astype(np.int32),
        "reward": code.astype(np.float32) / 2,
        "is_first": np.full(rows, first),
        "is_last": np.full(rows, last),
        "is_terminal": np.zeros(rows, bool),
    }
    deter = np.repeat(step.astype(np.float16)[:, None], 4, 1)
    return fields, deter, np.repeat(step.astype(np.uint8)[:, None], 3, 1)


def assert_rows_are_windows(out: SampleBuffers) -> None:
    """Every column agrees with the environment and start that the row claims."""
    steps = out.start[:, None] + np.arange(out.fields["action"].shape[1])
    code = out.env[:, None] * 1000 + steps
    np.testing.assert_array_equal(out.fields["action"], code)
    np.testing.assert_array_equal(out.fields["reward"], code.astype(np.float32) / 2)
    np.testing.assert_array_equal(out.fields["vector"][..., 2], code)
    np.testing.assert_array_equal(out.fields["frame"][:, :, 3, 3, 0], code.astype(np.uint8))


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "ring", tmp_path / "latents"


@pytest.fixture
def replay(paths: tuple[Path, Path]) -> Iterator[Replay]:
    with Replay.create(*paths, make_spec(), seed=0) as replay:
        yield replay


def sample(replay: Replay, rows: int = 8, *, online: bool = False) -> SampleBuffers:
    out = SampleBuffers.allocate(replay.spec, rows)
    replay.sample(out, online=online)
    return out


def starts(out: SampleBuffers) -> list[tuple[int, int]]:
    return list(zip(out.env.tolist(), out.start.tolist(), strict=True))


# -- windows ---------------------------------------------------------------------------------


def test_windows_count_complete_windows_of_all_environments(replay: Replay) -> None:
    feed = Experience(replay)
    with pytest.raises(RuntimeError, match="5 steps"):
        sample(replay)
    for _ in range(4):
        feed.add(2, 0)
    assert (replay.windows, replay.steps) == (0, 8)
    feed.add(0)
    assert (replay.windows, replay.steps) == (1, 9)
    assert set(starts(sample(replay))) == {(0, 0)}
    feed.fill(100)
    assert (replay.windows, replay.steps) == (3 * 16, 309)
    assert replay.stats()["fill"] == 1.0


def test_samples_are_what_was_added_before_and_after_wrapping(replay: Replay) -> None:
    feed = Experience(replay)
    for _ in range(70):
        feed.add(1, 2)
        feed.add(2)
        if replay.windows:
            assert_rows_are_windows(sample(replay))


def test_rows_may_come_in_any_order(replay: Replay) -> None:
    feed = Experience(replay)
    for i in range(30):
        feed.add(*np.random.default_rng(i).permutation(3))
    assert_rows_are_windows(sample(replay, 64))


def test_windows_never_cross_the_cursor(replay: Replay) -> None:
    feed = Experience(replay)
    for added in range(5, 60):
        feed.fill(5 if added == 5 else 1)
        seen = {start for env, start in starts(sample(replay, 300)) if env == 0}
        assert min(seen) >= max(0, added - 20)
        assert max(seen) <= added - 5


def test_every_window_is_equally_likely(paths: tuple[Path, Path]) -> None:
    """Chi-square over windows, not over environments: they hold 16, 6 and 0 windows."""
    replay = Replay.create(*paths, make_spec(), seed=3)
    feed = Experience(replay)
    for step in range(27):
        feed.add(*([0, 1, 2] if step < 4 else [0, 1] if step < 10 else [0]))
    out = SampleBuffers.allocate(replay.spec, 22)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(1000):
        replay.sample(out, online=False)
        for window in starts(out):
            counts[window] = counts.get(window, 0) + 1
    assert len(counts) == 22
    chi_square = sum((seen - 1000) ** 2 / 1000 for seen in counts.values())
    assert chi_square < 46.8, "99.9th percentile with 21 degrees of freedom"
    replay.close()


def test_the_same_seed_and_calls_give_the_same_samples(tmp_path: Path) -> None:
    seen: dict[int, list[list[tuple[int, int]]]] = {}
    for run, seed in enumerate([7, 7, 8]):
        with Replay.create(tmp_path / f"r{run}", tmp_path / f"l{run}", make_spec(), seed=seed) as r:
            Experience(r).fill(40)
            seen[run] = [starts(sample(r, 4, online=True)) for _ in range(10)]
    assert seen[0] == seen[1] != seen[2]


def test_allocated_buffers_begin_at_a_page() -> None:
    """Copies into buffers at other addresses were seen to take three times as long."""
    out = SampleBuffers.allocate(make_spec(), 3)
    for array in (*out.fields.values(), out.deter, out.stoch):
        assert array.ctypes.data % 4096 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_buffers_of_the_caller_are_filled_in_place(replay: Replay) -> None:
    Experience(replay).fill(9)
    out = SampleBuffers.allocate(replay.spec, 2)
    out.fields = {name: np.zeros_like(array) for name, array in out.fields.items()}
    kept = out.fields["action"]
    replay.sample(out)
    assert kept is out.fields["action"]
    assert_rows_are_windows(out)


# -- annotation ------------------------------------------------------------------------------


def test_an_abandoned_episode_is_last_but_not_terminal(paths: tuple[Path, Path]) -> None:
    replay = Replay.create(*paths, make_spec(num_envs=1, length=6), seed=0)
    feed = Experience(replay)
    for step in range(6):
        feed.add(0, first=step in (0, 3), last=step == 5)
    out = sample(replay, 1)
    assert out.fields["is_last"][0].tolist() == [False, False, True, False, False, True]
    assert out.fields["is_first"][0].tolist() == [True, False, False, True, False, False]
    assert not out.fields["is_terminal"].any()
    feed.add(0, first=True)
    for env, start in starts(out := sample(replay, 16)):
        if (env, start) == (0, 1):
            row = starts(out).index((0, 1))
            # Step 3 is first, so step 2 is last; step 5 said so itself; the final index is step 6.
            assert out.fields["is_last"][row].tolist() == [False, True, False, False, True, False]
            # The first flag of index 0 is forced.
            assert out.fields["is_first"][row].tolist() == [True, False, True, False, False, True]
            break
    else:
        pytest.fail("the second window was never drawn")
    replay.close()


def test_the_final_index_is_not_annotated(paths: tuple[Path, Path]) -> None:
    replay = Replay.create(*paths, make_spec(num_envs=1), seed=0)
    feed = Experience(replay)
    for step in range(6):
        feed.add(0, first=step in (0, 5))
    last = {s: sample_row(replay, s).fields["is_last"][0].tolist() for s in (0, 1)}
    assert last == {0: [False] * 5, 1: [False, False, False, True, False]}
    replay.close()


def sample_row(replay: Replay, start: int) -> SampleBuffers:
    """Draw until the window of environment 0 that begins at `start` comes."""
    for _ in range(1000):
        out = sample(replay, 1)
        if starts(out) == [(0, start)]:
            return out
    raise AssertionError(f"no window at {start}")


# -- latents ---------------------------------------------------------------------------------


def test_the_context_is_the_latent_of_index_0(replay: Replay) -> None:
    Experience(replay).fill(33)
    out = sample(replay, 32)
    np.testing.assert_array_equal(out.deter, np.repeat(out.start[:, None], 4, 1))
    np.testing.assert_array_equal(out.stoch, np.repeat(out.start[:, None], 3, 1))


def write(replay: Replay, env: int, start: int, value: int, generation: int | None = None) -> int:
    """Write one window's latents: value + step everywhere."""
    steps = start + 1 + np.arange(replay.spec.length - 1)
    deter = np.broadcast_to((value + steps)[:, None], (len(steps), 4)).astype(np.float16)
    stoch = np.broadcast_to((value + steps)[:, None], (len(steps), 3)).astype(np.uint8)
    return replay.write_latents(
        np.array([env], np.int32),
        np.array([start]),
        replay.generation if generation is None else generation,
        deter[None],
        stoch[None],
    )


def contexts(replay: Replay, env: int) -> dict[int, int]:
    """Read the latents of all steps that begin a window."""
    found: dict[int, int] = {}
    for _ in range(60):
        out = sample(replay, 16)
        assert (out.deter == out.deter[:, :1]).all()
        assert (out.deter[:, :1].astype(np.uint8) == out.stoch).all()
        for row, (e, start) in enumerate(starts(out)):
            if e == env:
                found[start] = int(out.deter[row, 0])
    return found


def test_latents_are_refreshed_for_the_trained_steps_only(replay: Replay) -> None:
    Experience(replay).fill(12)
    assert write(replay, 1, 2, 100) == 4
    assert contexts(replay, 1) == {s: s + 100 * (3 <= s <= 6) for s in range(8)}
    assert contexts(replay, 0) == {s: s for s in range(8)}


def test_latents_are_written_across_the_end_of_the_ring(replay: Replay) -> None:
    feed = Experience(replay)
    feed.fill(38)
    assert write(replay, 0, 18, 100) == 4, "steps 19 to 22 lie in slots 19, 0, 1, 2"
    assert contexts(replay, 0) == {s: s + 100 * (19 <= s <= 22) for s in range(18, 34)}


def test_latents_of_overwritten_steps_are_left_alone(replay: Replay) -> None:
    feed = Experience(replay)
    feed.fill(20)
    first = contexts(replay, 0)
    feed.fill(3)
    assert write(replay, 0, 0, 100) == 2, "steps 1 and 2 are gone, 3 and 4 are still there"
    assert contexts(replay, 0) == {s: s + 100 * (s in (3, 4)) for s in range(3, 19)}
    feed.fill(30)
    assert write(replay, 0, 0, 100) == 0
    assert first[0] == 0


def test_latents_of_another_generation_are_refused(replay: Replay) -> None:
    Experience(replay).fill(12)
    assert write(replay, 0, 2, 100, generation=replay.generation - 1) == 0
    assert contexts(replay, 0) == {s: s for s in range(8)}


@pytest.mark.parametrize("damage", ["missing", "foreign", "older", "empty"])
def test_lost_latents_read_as_a_reset_with_zero_context(
    paths: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    ring, latents = paths
    spec = make_spec(num_envs=1)
    with Replay.create(ring, latents, spec, seed=0) as replay:
        Experience(replay).fill(12)
    if damage == "missing":
        latents.unlink()
    elif damage == "foreign":
        other = tmp_path / "other"
        Replay.create(other, tmp_path / "theirs", spec, seed=0).close()
        latents.write_bytes((tmp_path / "theirs").read_bytes())
    elif damage == "empty":
        latents.write_bytes(b"")
    else:
        kept = latents.read_bytes()
        latents.unlink()
        Replay.open(ring, latents, spec, seed=0).close()
        latents.write_bytes(kept)
    with Replay.open(ring, latents, spec, seed=0) as replay:
        out = sample(replay, 8)
        assert_rows_are_windows(out)
        assert not out.deter.any()
        assert not out.stoch.any()
        assert out.fields["is_first"][:, 1].all(), "the model starts from its initial state"
        assert not out.fields["is_last"].any(), "the reset is not an episode's end"
        assert replay.stats()["contexts_lost"] == 8
        write(replay, 0, 0, 100)
        out = sample(replay, 64)
        known = (out.start >= 1) & (out.start <= 4)
        np.testing.assert_array_equal(out.deter[:, 0], np.where(known, out.start + 100, 0))
        np.testing.assert_array_equal(out.fields["is_first"][:, 1], ~known)
    with Replay.open(ring, latents, spec, seed=0) as replay:
        assert sorted(contexts(replay, 0).values())[-4:] == [101, 102, 103, 104]


def test_half_written_latents_read_as_lost(replay: Replay) -> None:
    """What a process leaves that is killed in `write_latents`."""
    Experience(replay).fill(5)
    replay._latent["valid"][1, 0] = 0
    out = sample(replay, 32)
    np.testing.assert_array_equal(out.fields["is_first"][:, 1], out.env == 1)
    feed = Experience(replay)
    feed.count += 5
    feed.fill(7)
    replay._latent["valid"][:, 5] = 0
    rows = (out := sample(replay, 64)).start == 5
    assert rows.any()
    assert not out.deter[rows].any()
    assert not out.stoch[rows].any()
    assert out.deter[~rows & (out.start > 0)].all()


def test_latents_cost_one_byte_per_step_besides_themselves() -> None:
    """Figures of docs/replay.md: size1m, 64x64x3."""
    fields = FIELDS | {"frame": Field((64, 64, 3), "uint8"), "vector": Field((1,), "float32")}
    spec = make_spec(fields=fields, deter=512, stoch=32, num_envs=16, capacity=100_000)
    raw = 64 * 64 * 3 + 4 + 4 + 4 + 3
    assert spec.raw_bytes == raw + 1024 + 32
    ring, latents = ring_bytes(spec)
    assert 0 <= ring - 1_600_000 * raw < 100_000
    assert 0 <= latents - 1_600_000 * (1024 + 32 + 1) < 100_000


# -- the online queue ------------------------------------------------------------------------


def test_the_queue_is_served_in_order_and_once(replay: Replay) -> None:
    """Length 5: with n steps before this one, a window is queued when n mod 5 = 0 and n > 0."""
    feed = Experience(replay)
    feed.fill(5)
    assert replay.stats()["online_queue"] == 0
    feed.add(2, 0)
    assert replay.stats()["online_queue"] == 2
    feed.add(1)
    for _ in range(4):
        feed.add(0)
    assert replay.stats()["online_queue"] == 3
    feed.add(0)
    assert starts(sample(replay, 4, online=True)) == [(2, 1), (0, 1), (1, 1), (0, 6)]
    assert replay.stats()["online_queue"] == 0
    assert replay.stats()["online_served"] == 4


def test_without_the_queue_sampling_is_uniform(paths: tuple[Path, Path]) -> None:
    with Replay.create(*paths, make_spec(), seed=0, online=False) as replay:
        Experience(replay).fill(17)
        assert replay.stats()["online_queue"] == 0
        sample(replay, online=True)


def test_report_batches_leave_the_queue_alone(replay: Replay) -> None:
    Experience(replay).fill(6)
    sample(replay, online=False)
    assert replay.stats()["online_queue"] == 3


def test_overwritten_entries_are_dropped_and_counted(replay: Replay) -> None:
    feed = Experience(replay)
    feed.fill(6)
    for _ in range(22):
        feed.add(0)
    assert starts(sample(replay, 2, online=True)) == [(1, 1), (2, 1)]
    assert replay.stats()["online_dropped"] == 1


# -- checkpoints -----------------------------------------------------------------------------


def reopened(paths: tuple[Path, Path], spec: RingSpec, state: dict[str, Any]) -> Replay:
    replay = Replay.open(*paths, spec, seed=99)
    assert replay.load_state(json.loads(json.dumps(state)))
    return replay


def test_a_restored_replay_goes_on_as_if_nothing_happened(paths: tuple[Path, Path]) -> None:
    replay = Replay.create(*paths, make_spec(), seed=0)
    feed = Experience(replay)
    feed.fill(33)
    sample(replay, 4, online=True)
    state = replay.state()
    expected = [starts(sample(replay, 4, online=True)) for _ in range(6)]
    counters = replay.stats()
    replay.close()
    with reopened(paths, make_spec(), state) as replay:
        assert [starts(sample(replay, 4, online=True)) for _ in range(6)] == expected
        assert replay.stats() == counters
        assert replay.generation == 2


def test_after_a_kill_the_ring_is_newer_than_the_checkpoint(paths: tuple[Path, Path]) -> None:
    replay = Replay.create(*paths, make_spec(num_envs=2, capacity=12), seed=0)
    feed = Experience(replay)
    feed.fill(11)
    state = replay.state()
    assert state["queue"] == [[0, 1], [1, 1], [0, 6], [1, 6]]
    for _ in range(5):
        feed.add(0)
    replay.close()
    with reopened(paths, make_spec(num_envs=2, capacity=12), state) as replay:
        assert replay.steps == 27
        assert replay.stats()["online_dropped"] == 1, "step 1 of environment 0 is overwritten"
        served = starts(sample(replay, 4, online=True))
        assert served == [(1, 1), (0, 6), (1, 6), (0, 11)], "the last one is newer than the state"


def test_windows_completed_since_the_checkpoint_come_in_the_order_of_their_steps(
    paths: tuple[Path, Path],
) -> None:
    replay = Replay.create(*paths, make_spec(), seed=0)
    state = replay.state()
    Experience(replay).fill(11)
    replay.close()
    with reopened(paths, make_spec(), state) as replay:
        served = starts(sample(replay, 6, online=True))
        assert served == [(0, 1), (1, 1), (2, 1), (0, 6), (1, 6), (2, 6)]


def test_loading_a_state_replaces_the_present_one(replay: Replay) -> None:
    Experience(replay).fill(11)
    state = replay.state()
    assert replay.load_state(state)
    assert replay.state() == state


def test_the_state_of_another_ring_gives_its_generator_only(tmp_path: Path) -> None:
    with Replay.create(tmp_path / "a", tmp_path / "b", make_spec(), seed=5) as old:
        Experience(old).fill(11)
        state = old.state()
    fresh = Replay.create(tmp_path / "c", tmp_path / "d", make_spec(num_envs=2), seed=6)
    assert fresh.load_state(state) is False
    Experience(fresh).fill(4)
    assert fresh.stats()["online_queue"] == 0
    assert fresh.stats()["online_dropped"] == 6
    assert fresh.state()["rng"] == state["rng"]
    fresh.close()


def test_a_state_of_another_window_length_loses_its_queue(paths: tuple[Path, Path]) -> None:
    replay = Replay.create(*paths, make_spec(), seed=0)
    Experience(replay).fill(11)
    state = replay.state()
    replay.close()
    with reopened(paths, make_spec(length=4), state) as replay:
        assert (replay.stats()["online_queue"], replay.stats()["online_dropped"]) == (0, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"rng": {}},
        {"rng": {"bit_generator": "MT19937"}},
        {"queue": [[0]]},
        {"queue": [[7, 0]]},
        {"queue": None},
        {"heads": [1, 2]},
        {"heads": ["x", 1, 2]},
        {"counters": {}},
        {"surprise": 1},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(
    replay: Replay, change: dict[str, Any]
) -> None:
    Experience(replay).fill(11)
    before = replay.state()
    with pytest.raises(ValueError, match="replay state"):
        replay.load_state(before | change)
    assert replay.state() == before


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
    replay._reserved[0] += 1
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


@pytest.mark.parametrize("wrong", ["repeated", "range", "missing", "shape", "dtype", "latents"])
def test_wrong_rows_are_a_programmers_mistake(replay: Replay, wrong: str) -> None:
    env = np.array([0, 1], np.int32)
    fields, deter, stoch = step_data(env, np.zeros(2, np.int64), False, False)
    match wrong:
        case "repeated":
            env[1] = 0
        case "range":
            env[1] = 3
        case "missing":
            del fields["reward"]
        case "shape":
            fields["vector"] = fields["vector"][:, :2]
        case "dtype":
            fields["reward"] = fields["reward"].astype(np.float64)
        case "latents":
            deter = cast(Any, deter.astype(np.float32))
    with pytest.raises(AssertionError):
        replay.add(env, fields, deter, stoch)
    assert replay.steps == 0
    assert (replay._reserved == 0).all()


def test_wrong_buffers_are_a_programmers_mistake(replay: Replay) -> None:
    Experience(replay).fill(9)
    out = SampleBuffers.allocate(make_spec(length=4), 2)
    with pytest.raises(AssertionError, match=r"frame is \(2, 4, 4, 4, 1\)"):
        replay.sample(out)


def test_a_closed_replay_can_be_closed_again_and_not_used(replay: Replay) -> None:
    Experience(replay).fill(9)
    out = SampleBuffers.allocate(replay.spec, 2)
    replay.close()
    replay.close()
    with pytest.raises(AssertionError):
        replay.sample(out)
