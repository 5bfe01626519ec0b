"""Four ranks learn the toy as one process does, within the bands of `run/test_learning`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fault_runs import log
from parallel.rank_runs import RankServer
from run.test_learning import EPISODES, RUN, statistics
from run.test_learning import outside as outside_bands
from tiny_run import read

from dreamer_async.config import resolve, to_dict
from dreamer_async.store.events import Episode
from dreamer_async.store.run_dir import RunDir

pytestmark = pytest.mark.slow
LEARNED = "last loss/reward", "last loss/goal", "last loss/dyn", "last return"
"""What says that it learned; noise is other noise on ranks, so that the rest may differ."""


def test_four_ranks_learn_the_toy(tmp_path: Path) -> None:
    config = resolve("toy", "seek", size="tiny", overrides=RUN)
    run = RunDir.create(tmp_path, "seek", config=to_dict(config))
    server = RankServer()
    try:
        assert server.train(run, 4) == [0] * 4, log(run)
    finally:
        server.close()
    found = statistics(run)
    outside = {name: found[name] for name in LEARNED if name in outside_bands(found)}
    assert outside == {}
    scores = [event.score for event in read(run) if isinstance(event, Episode)]
    before = float(np.mean(np.array(scores[:EPISODES])))
    assert found["last return"] > 1.2 * before, "control: it was no better from the start"
