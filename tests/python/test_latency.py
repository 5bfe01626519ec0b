"""The measurement of a session's steps measures them."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_async.python.latency import measure, stolen


@pytest.mark.slow
def test_steps_are_timed_while_the_learner_is_busy() -> None:
    latency = measure("tiny", hz=100.0, seconds=3.0, device="cpu", ratio=4096.0)
    assert latency.steps >= 200 and latency.updates_per_second > 0
    assert 0 < latency.p50_ms <= latency.p99_ms <= latency.max_ms
    assert latency.learner_busy > 0.5


def test_what_the_host_took_away_is_a_share_of_all_time() -> None:
    before = np.array([100, 0, 50, 800, 0, 0, 0, 50])
    after = before + np.array([30, 0, 10, 40, 0, 0, 0, 20])
    assert stolen(before, after) == pytest.approx(0.2)
    assert stolen(before, before) == 0.0 and stolen(None, after) is None
