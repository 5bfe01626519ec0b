"""Acting goes on while an update runs: the run updates nearly as often as the learner alone."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from dreamer_async import events
from tests.gpu_sim.card import INTERPRETED, Card, trainer

UPDATE_MS = 100
SLOW = {"FAKE_UPDATE_US": UPDATE_MS * 1000, "FAKE_KERNEL_US": 50}
"""What an update and each kernel of the policy take on the card."""
OFTEN = "train.steps=400", "train.train_ratio=16", "env.batch_size=2"
"""Updates are what the run waits for, and each of them is reported."""


def between_updates(card: Card, *overrides: str) -> float:
    """Median milliseconds from one update to the next, of a whole run."""
    run = card.run("train.device=cuda", *OFTEN, *overrides)
    done = card.call(*trainer(run), **SLOW, **INTERPRETED)
    assert done.code == 0 and not done.broken, done.output
    records, _ = events.read_events(run.events_path)
    times = [record.mono for record in records if isinstance(record.event, events.Metrics)]
    assert len(times) > 50
    return 1e3 * median(b - a for a, b in pairwise(times[5:-5]))


def test_a_run_updates_as_often_as_the_learner_alone(card: Card) -> None:
    """The card alone says how long an update takes, so that much is what a learner alone needs."""
    assert UPDATE_MS * 0.99 < between_updates(card) < UPDATE_MS * 1.1


def test_waiting_for_updates_is_seen(card: Card) -> None:
    """The control: in lockstep the policy does wait for them."""
    assert between_updates(card, "train.sync=true", "train.train_ratio=2") > UPDATE_MS * 1.1
