"""Bench measures every part, for discrete and for continuous actions."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_async.bench import bench, random_action
from dreamer_async.config import resolve
from envs.spec import ActionSpec

SMALL = (
    *("train.batch_size=2", "train.batch_length=4", "train.compile=false", "train.device=cpu"),
    *("train.threads=1", "env.num_envs=2"),
    *("model.deter=32", "model.hidden=8", "model.units=8", "model.stoch=4", "model.depth=2"),
)


@pytest.mark.parametrize("task", ["catch", "reach"])
def test_every_rate_is_positive(task: str) -> None:
    result = bench(resolve("toy", task, overrides=SMALL), seconds=0.02)
    rates = [result[name] for name in ("env_steps", "policy_rows", "updates", "bound")]
    assert min(rates) > 0
    assert result["bound"] <= min(result["env_steps"], result["policy_rows"])
    assert {"sample", "update"} <= set(result["update_shares"])
    assert sum(result["update_shares"].values()) == pytest.approx(1.0)


def test_random_actions_fit_their_spec() -> None:
    rng = np.random.default_rng(0)
    discrete = random_action(ActionSpec("discrete", 3), 200, rng)
    assert discrete.dtype == np.int32
    assert set(discrete.tolist()) == {0, 1, 2}
    continuous = random_action(ActionSpec("continuous", 2), 5, rng)
    assert (continuous.dtype, continuous.shape) == (np.float32, (5, 2))
