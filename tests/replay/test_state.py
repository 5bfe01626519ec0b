"""What a checkpoint keeps of a replay: it goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from experience import Experience, make_spec, sample, starts

from dreamer_async.replay.layout import RingSpec
from dreamer_async.replay.replay import Replay


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
