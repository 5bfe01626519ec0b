"""kill -9 of any rank at any time loses nothing that was acknowledged."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from fault_runs import KILLS, SEEK, Ledger, log
from parallel.rank_runs import RankServer
from tiny_run import extend, make_run, read

from dreamer_async.store import events

pytestmark = pytest.mark.faults
LIVES = max(5, min(20, KILLS // 3))


def test_kill_9_of_any_rank_at_any_time_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    """The ranks that are left end by themselves, long before their grace period is over."""
    server, chance = RankServer(), random.Random(0)
    run = make_run(tmp_path, *SEEK, "train.checkpoint_seconds=0.3", task="seek")
    ledger, longest, met = Ledger(run), 1.0, 0
    try:
        for life in range(LIVES):
            victim, other = chance.choice([(0, 1), (1, 0)])
            when = "started" if life % 5 == 4 else "begun" if life else "saved"
            before = ledger.saves
            kill = victim, when, chance.uniform(0.0, longest)
            codes = server.train(run, resume=life > 0, kill=kill)
            assert codes[victim] == -signal.SIGKILL, (life, codes, log(run)[-500:])
            met += codes[other] == 77
            alone = when == "started" and codes[other] in (
                0,
                -signal.SIGTERM,
            )  # never met: torchrun
            assert codes[other] == 77 or alone, (life, codes, log(run)[-500:])
            assert ledger.faults() == [], life
            longest *= 0.8 if ledger.saves > before else 1.25
        extend(run, f"train.steps={ledger.steps + 40}")
        assert server.train(run, resume=True) == [0, 0], log(run)[-500:]
        assert ledger.resumed() == []
    finally:
        server.close()
    saves = [event for event in read(run) if isinstance(event, events.Checkpointed)]
    assert len(saves) >= LIVES / 4, "the kills must hit runs that save"
    assert met >= LIVES / 2, "and ranks that have met"
