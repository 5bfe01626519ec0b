"""Acting goes on while an update runs: the run updates nearly as often as the learner alone."""

from __future__ import annotations

import json
from itertools import pairwise
from statistics import median

from dreamer_async.store import events
from tests.gpu_sim.card import INTERPRETED, Card, trainer
from tests.tiny_run import TINY

UPDATE_S = 0.1
KERNELS = {"FAKE_NODE_US": 400, "FAKE_KERNEL_US": 50}
"""What each node of an acting step takes, so that its 113 take 45 ms, and other kernels."""
SLOW = {"FAKE_UPDATE_US": UPDATE_S * 1e6, **KERNELS, **INTERPRETED}
OFTEN = "train.steps=400", "train.train_ratio=16", "env.batch_size=2"
"""Updates are what the run waits for."""


def updates_per_second(card: Card, *overrides: str) -> float:
    """Of a whole run, median over its seconds."""
    run = card.run("train.device=cuda", *OFTEN, *overrides)
    done = card.call(*trainer(run), **SLOW)
    assert done.code == 0 and not done.broken, done.output
    records, _ = events.read_events(run.events_path)
    seen = [(r.mono, r.event.updates) for r in records if isinstance(r.event, events.Gauges)]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(seen) if a[1] > 0]
    assert len(rates) > 3, "the run was too short to say"
    return median(rates[:-1])


def alone(card: Card) -> float:
    """Updates per second of a learner without a policy, on the same card."""
    settings = *TINY, *OFTEN, "train.compile=true", "train.device=cuda"
    words = [word for setting in settings for word in ("-s", setting)]
    of = "--suite", "toy", "--task", "catch", "--size", "tiny", "--seconds", "10", "--json"
    done = card.call("-m", "dreamer_async", "bench", "learner", *of, *words, **SLOW)
    assert done.code == 0, done.output
    whole = json.loads(done.output.splitlines()[-1])["results"][0]
    assert "captured" in whole["what"] and whole["median_s"] > 0.99 * UPDATE_S
    return 1 / whole["median_s"]


def test_a_run_updates_nearly_as_often_as_the_learner_alone(card: Card) -> None:
    whole, learner = updates_per_second(card), alone(card)
    print(f"\n{whole:.2f} updates/s of a run, {learner:.2f} of its learner alone")
    assert whole > 0.9 * learner


def test_a_run_whose_policy_waits_for_updates_is_seen(card: Card) -> None:
    """The control: in lockstep the policy does wait for them."""
    assert updates_per_second(card, "train.sync=true") < 0.9 / UPDATE_S
