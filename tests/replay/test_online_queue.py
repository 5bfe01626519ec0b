"""The online queue: fresh windows come first, once, and in order."""

from __future__ import annotations

from pathlib import Path

from experience import Experience, make_spec, sample, starts

from dreamer_async.replay.replay import Replay


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
