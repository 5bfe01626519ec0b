"""SIGTERM ends a run on a GPU within its grace time, whatever the card is doing."""

from __future__ import annotations

import time

import pytest

from dreamer_async.store import exit_codes
from tests.gpu_sim.card import INTERPRETED, Card, phase, trainer, updates, wait_until
from tests.tiny_run import newest

GRACE_S = 15.0
ENDLESS = "train.device=cuda", "train.steps=1000000", f"train.grace_seconds={GRACE_S}"
BEYOND_S = 30.0
"""For a busy machine, on which the watchdog's short waits take longer, and to end the process."""


@pytest.mark.parametrize("update_us", [1_000, 500_000])
def test_a_run_that_trains_saves_and_ends(card: Card, update_us: int) -> None:
    run = card.run(*ENDLESS)
    process = card.start(*trainer(run), FAKE_UPDATE_US=update_us, **INTERPRETED)
    wait_until(process, lambda: updates(run) > 2)
    began = time.monotonic()
    process.terminate()
    done = card.end(process, GRACE_S + BEYOND_S)
    assert done.code == 0, done.output
    assert time.monotonic() - began < GRACE_S + BEYOND_S
    assert newest(run).manifest["updates"] > 2


def test_a_run_that_warms_up_ends(card: Card) -> None:
    run = card.run(*ENDLESS)
    process = card.start(*trainer(run), **INTERPRETED)
    wait_until(process, lambda: phase(run) == "compiling")
    process.terminate()
    assert card.end(process, GRACE_S + BEYOND_S).code in (0, exit_codes.STUCK)


def test_a_card_that_hangs_does_not_keep_a_run(card: Card) -> None:
    """Updates that take an hour: the first one is never over."""
    run = card.run(*ENDLESS)
    process = card.start(*trainer(run), FAKE_UPDATE_US=3_600_000_000, **INTERPRETED)
    wait_until(process, lambda: phase(run) == "training")
    process.terminate()
    done = card.end(process, GRACE_S + BEYOND_S)
    assert done.code == exit_codes.STUCK and "not stopped after" in done.output
