"""The replay: windows, annotation, contexts, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from experience import (
    FIELDS,
    Experience,
    assert_rows_are_windows,
    make_spec,
    sample,
    starts,
    step_data,
)

from dreamer_async.replay.layout import SampleBuffers, ring_bytes
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.ring import Field

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


@pytest.mark.parametrize("steps", [7, 43])
def test_what_was_done_instead_replaces_the_newest_action_alone(replay: Replay, steps: int) -> None:
    """Before and after the ring has wrapped; no window has it anywhere but at its end."""
    feed = Experience(replay)
    feed.fill(steps)
    replay.amend(np.array([2, 0], np.int32), np.array([-7, -8], np.int32))
    out = sample(replay, 256)
    code = out.env * 1000 + out.start
    width = out.fields["action"].shape[1]
    wanted = code[:, None] + np.arange(width)
    newest = out.start + width == steps
    wanted[newest & (out.env == 2), -1], wanted[newest & (out.env == 0), -1] = -7, -8
    assert newest.any() and not newest.all()
    np.testing.assert_array_equal(out.fields["action"], wanted)
    feed.fill(1)
    assert (sample(replay, 256).fields["reward"] >= 0).all(), "and the rest goes on"


def test_windows_never_cross_the_cursor(replay: Replay) -> None:
    feed = Experience(replay)
    for added in range(5, 60):
        feed.fill(5 if added == 5 else 1)
        seen = {start for env, start in starts(sample(replay, 300)) if env == 0}
        assert min(seen) >= max(0, added - 20)
        assert max(seen) <= added - 5


def test_the_newest_windows_are_the_last_ones_and_do_not_overlap(replay: Replay) -> None:
    feed = Experience(replay)
    feed.fill(7)
    assert replay.newest_windows == 3
    out = SampleBuffers.allocate(replay.spec, 3)
    replay.sample(out, newest=True)
    assert starts(out) == [(0, 2), (1, 2), (2, 2)], "of 5 steps each"
    feed.fill(100)
    assert replay.newest_windows == 3 * (20 // 5)
    out = SampleBuffers.allocate(replay.spec, 5)
    replay.sample(out, newest=True)
    assert_rows_are_windows(out)
    assert starts(out) == [(0, 102), (1, 102), (2, 102), (0, 97), (1, 97)]
    with pytest.raises(RuntimeError, match="fewer than 13 windows"):
        replay.sample(SampleBuffers.allocate(replay.spec, 13), newest=True)


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


# -- programmers' mistakes -------------------------------------------------------------------


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
    assert (replay._cursors.reserved == 0).all()


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
