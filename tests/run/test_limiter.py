"""The limiter's accounting and its waits."""

from __future__ import annotations

import asyncio

import pytest

from dreamer_async.run.limiter import TrainRatio


def updates_after(ratio: TrainRatio, steps: int) -> int:
    """Insert one step at a time and update whenever it is due, as the official loop does."""
    updates = 0
    while ratio.due:
        ratio.sample()
        updates += 1
    for _ in range(steps):
        ratio.insert(1)
        while ratio.due:
            ratio.sample()
            updates += 1
    return updates


@pytest.mark.parametrize(
    ("train_ratio", "steps", "expected"),
    [(32.0, 0, 1), (32.0, 31, 1), (32.0, 32, 2), (32.0, 3200, 101), (256.0, 4, 2), (1024.0, 5, 6)],
)
def test_updates_match_the_official_accounting(
    train_ratio: float, steps: int, expected: int
) -> None:
    ratio = TrainRatio(train_ratio, cost=1024)
    ratio.insert(2048)
    assert not ratio.due, "nothing is due before the prefill is complete"
    ratio.start()
    assert updates_after(ratio, steps) == expected


@pytest.mark.parametrize("owed", [0, 99, 1000])
def test_debt_survives_a_resume_without_burst_or_stall(owed: int) -> None:
    """Also that of steps whose updates were all to come."""
    first, second, whole = (TrainRatio(32, cost=1024) for _ in range(3))
    for ratio in (first, whole):
        ratio.insert(2048)
        ratio.start()
    updates = updates_after(first, 100)
    first.insert(owed)
    second.inserted = first.inserted
    second.start(first.debt)
    assert second.debt == first.debt
    burst = updates_after(second, 0)
    assert burst == first.debt // 1024
    assert updates + burst + updates_after(second, 100) == updates_after(whole, 200 + owed)


def test_the_phase_of_a_paused_run_is_paused_whatever_happens_meanwhile() -> None:
    ratio = TrainRatio(32, cost=1024)
    assert ratio.phase == "prefill"
    ratio.paused = True
    ratio.start()
    assert ratio.phase == "paused"
    ratio.paused = False
    assert ratio.phase == "training"


def test_the_prefill_may_end_while_the_update_is_compiled() -> None:
    ratio = TrainRatio(32, cost=1024)
    ratio.compiling = True
    assert ratio.phase == "compiling"
    ratio.start()
    assert ratio.phase == "compiling"
    ratio.paused = True
    assert ratio.phase == "paused"
    ratio.paused = ratio.compiling = False
    assert ratio.phase == "training"


def test_steps_since_start_excludes_the_prefill() -> None:
    ratio = TrainRatio(32, cost=1024)
    ratio.insert(50)
    assert ratio.steps_since_start == 0
    ratio.start()
    ratio.insert(7)
    assert ratio.steps_since_start == 7


def test_a_bound_that_could_deadlock_is_refused() -> None:
    with pytest.raises(ValueError, match="neither side could move"):
        TrainRatio(32, cost=1024, bound=1023)
    with pytest.raises(ValueError, match="positive"):
        TrainRatio(0, cost=1024)


def test_sampling_without_credit_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="does not cover"):
        TrainRatio(32, cost=1024).sample()


def test_collector_waits_for_the_learner_and_the_learner_for_the_collector() -> None:
    async def scenario() -> None:
        ratio = TrainRatio(32, cost=64, bound=64)
        due = asyncio.create_task(ratio.until_due())
        await asyncio.sleep(0)
        assert not due.done()
        ratio.insert(10)
        ratio.start()
        await ratio.notify()
        await due
        ratio.insert(4)  # debt 64 + 128 is above the bound
        room = asyncio.create_task(ratio.room())
        await asyncio.sleep(0)
        assert not room.done()
        while ratio.due:
            ratio.sample()
        await ratio.notify()
        await room
        await ratio.reached(14)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_pause_holds_both_sides_and_leaves_the_debt_alone() -> None:
    async def scenario() -> None:
        ratio = TrainRatio(ratio=1.0, cost=4)
        ratio.start()
        ratio.paused = True
        sides = [asyncio.create_task(wait()) for wait in (ratio.room, ratio.until_due)]
        running = asyncio.create_task(ratio.running())
        await asyncio.sleep(0)
        await ratio.notify()
        await asyncio.sleep(0)
        assert not any(task.done() for task in (*sides, running))
        before, ratio.paused = ratio.debt, False
        await ratio.notify()
        await asyncio.wait_for(asyncio.gather(*sides, running), 120)
        assert ratio.debt == before

    asyncio.run(scenario())


def test_a_cancelled_wait_leaves_the_limiter_usable() -> None:
    async def scenario() -> None:
        ratio = TrainRatio(32, cost=64)
        waiting = asyncio.create_task(ratio.until_due())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        ratio.start()
        await ratio.notify()
        await ratio.until_due()

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_whoever_must_not_wait_is_forgiven_what_the_learner_cannot_do() -> None:
    ratio = TrainRatio(32, cost=64, bound=128, waits=False)
    ratio.insert(10_000)
    assert ratio.debt == 0.0, "nothing is due before the prefill is complete"
    ratio.start()
    for _ in range(100):
        ratio.insert(1)
        asyncio.run(asyncio.wait_for(ratio.room(), 1))
    assert ratio.debt == ratio.bound
    ratio.sample()
    ratio.paused = True
    asyncio.run(asyncio.wait_for(ratio.room(), 1))
    assert ratio.debt == ratio.bound - ratio.cost
    waiting = TrainRatio(32, cost=64, bound=128)
    waiting.start()
    waiting.insert(100)
    assert waiting.debt > waiting.bound, "the control: others wait and forgive nothing"
