"""What a checkpoint says of a run's counters: taken over as it is, whatever the ring holds now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from experience import Experience

from dreamer_async.replay.replay import Replay
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.run_state import RunState
from dreamer_async.store.checkpoint import Checkpoint
from dreamer_async.store.checkpoint_layout import LEARNER_GENERATOR

UPDATES = 7
PREFILL = 12
"""Windows."""
RATIO, COST = 8.0, 32


def limiter() -> TrainRatio:
    return TrainRatio(RATIO, COST)


def state_of(replay: Replay, ratio: TrainRatio) -> RunState:
    """A run's state with a real replay and limiter; nothing else of it has counters to restore."""
    learner = SimpleNamespace(updates=UPDATES, skipped=0, load_state=lambda *_: None)
    parts: tuple[Any, ...] = (
        learner,
        replay,
        ratio,
        SimpleNamespace(num_envs=replay.spec.num_envs),
        SimpleNamespace(),
        SimpleNamespace(score=None, prefill=PREFILL),
    )
    return RunState(*parts, lockstep=False)


def resumed(replay: Replay, owed: float, ahead: int) -> tuple[TrainRatio, float]:
    """A run with a debt is saved, takes more steps and is killed; the next life's limiter, and
    the updates that are forgiven."""
    feed, before, ratio = Experience(replay), limiter(), limiter()
    feed.fill(10)
    before.insert(replay.steps)
    before.start(owed)
    manifest = {"torch": "2", "threads": 1, **state_of(replay, before).counters()}
    generator = {LEARNER_GENERATOR: torch.Generator().get_state()}
    feed.fill(ahead // replay.spec.num_envs)
    lost = state_of(replay, ratio).load(Checkpoint(Path("step-1"), generator, manifest))
    assert ratio.inserted == before.inserted + ahead
    return ratio, lost


def updates_due(ratio: TrainRatio) -> int:
    """Do what is due now, and say how many updates that took."""
    updates = 0
    while ratio.due:
        ratio.sample()
        updates += 1
    return updates


@pytest.mark.parametrize("ahead", [0, 99])
@pytest.mark.parametrize("owed", [0.0, 31.0, 50.0, 88.0])
def test_steps_ahead_of_the_checkpoint_leave_its_debt_as_it_was(
    replay: Replay, owed: float, ahead: int
) -> None:
    """They are counted, and what they had paid for is forgiven: neither a burst nor a stall."""
    ratio, lost = resumed(replay, owed, ahead)
    assert (ratio.debt, lost) == (owed, ahead * RATIO / COST)
    assert updates_due(ratio) == owed // COST, "no burst"
    ratio.insert(12)
    assert updates_due(ratio) == (owed % COST + 12 * RATIO) // COST, "no stall"


@pytest.mark.parametrize("ahead", [0, 99])
def test_of_a_debt_that_no_run_gets_into_the_rest_is_forgiven(replay: Replay, ahead: int) -> None:
    ratio, lost = resumed(replay, 1e6, ahead)
    most = ratio.bound + replay.spec.num_envs * RATIO
    assert (ratio.debt, lost) == (most, (ahead * RATIO + 1e6 - most) / COST)
