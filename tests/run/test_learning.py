"""The short form of docs/learning.md: a small run stays within recorded bands, and mistakes do not.

The bands in tests/data/learning_bands.json are the range over SEEDS, widened by its own width on
both sides: rounding differs from machine to machine, and hundreds of updates make much of it.
`BANDS=write python -m pytest -m slow tests/run/test_learning.py` records them anew.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer_async import envs
from dreamer_async.agent.distributions import unimix
from dreamer_async.config import resolve, settings, to_dict
from dreamer_async.run import pipeline
from dreamer_async.run.saved_agent import load
from dreamer_async.store.events import Episode, Metrics
from dreamer_async.store.run_dir import RunDir
from tests.tiny_run import read

BANDS = Path(__file__).resolve().parents[1] / "data" / "learning_bands.json"
SEEDS = (1, 2, 3)
RUN = (
    *("train.sync=true", "train.device=cpu", "train.threads=1", "train.metrics_seconds=1e-9"),
    *("env.num_envs=8", "train.train_ratio=32", "train.batch_size=8", "train.batch_length=8"),
    *("train.steps=1350", "optim.lr=1e-3", "optim.warmup=50"),
    *("model.stoch=4", "loss.imagine_length=8"),
)
"""Some 600 updates; few latents, so that they become as sure as unimix lets them."""
LEAST = "log10 of the least probability of a class"
MISTAKES = {
    "no slow critic": ("last loss/critic", "loss.slow_regularizer=0", "loss.slow_rate=1"),
    "no unimix": (LEAST, "model.unimix=0"),
    "wrong sign of the entropy": ("first loss/actor", "loss.entropy=-3e-4"),
}
"""Mistake -> a statistic that it must move, and the settings that make it."""
FIRST, LAST, EPISODES = 5, 200, 60
"""First and last updates, and last episodes, that a statistic averages."""
BEGINNING = ("loss/actor", "loss/critic", "loss/replay_critic", "loss/dyn")
END = (
    *("loss/reward", "loss/goal", "loss/dyn", "loss/critic", "loss/replay_critic"),
    *("policy/entropy", "return/mean", "rssm/posterior_entropy", "rssm/prior_entropy"),
)

Measure = Callable[..., dict[str, float]]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Train on the toy seek and sum up the beginning and the end of the run."""

    def run(seed: int, *mistake: str) -> dict[str, float]:
        with monkeypatch.context() as patch:
            if mistake:  # a negative entropy is refused
                patch.setattr(settings.LossConfig, "__post_init__", lambda self: None)
            overrides = (*RUN, f"train.seed={seed}", *mistake)
            config = resolve("toy", "seek", size="tiny", overrides=overrides)
            made = RunDir.create(tmp_path, f"seed-{seed}", config=to_dict(config))
            assert pipeline.main(made, plain=False, resume=False) == 0
            return statistics(made)

    return run


def statistics(run: RunDir) -> dict[str, float]:
    seen = read(run)
    updates = [event.values for event in seen if isinstance(event, Metrics)]
    scores = [event.score for event in seen if isinstance(event, Episode)]
    assert len(updates) > 500 and len(scores) > EPISODES
    found = {f"first {name}": _mean(updates[:FIRST], name) for name in BEGINNING}
    found |= {f"last {name}": _mean(updates[-LAST:], name) for name in END}
    found["last return"] = float(np.mean(np.array(scores[-EPISODES:])))
    found[LEAST] = math.log10(least_probability(run))
    return found


def _mean(updates: list[Mapping[str, float | None]], name: str) -> float:
    return float(np.mean(np.array([values[name] for values in updates])))


@torch.no_grad()
def least_probability(run: RunDir) -> float:
    """Smallest probability that the posterior gives to any class, along some episodes."""
    agent, least = load(run.path, device="cpu"), 1.0
    policy, share = agent.policy, agent.config.model.unimix
    carry = policy.initial(8)
    with envs.make("toy", "seek", num_envs=8, seed=0) as env:
        env.start()
        for _ in range(30):
            step = env.recv()
            acted, carry = policy.act(step.obs, step.is_first, carry, agent.generator)
            env.send(acted.action, step.env_id)
            embed = policy.enc({"goal": torch.from_numpy(step.obs["goal"])}, policy.dtype)
            logits = policy.dyn.posterior(carry.deter, embed)  # [N, S, K]
            least = min(least, float(unimix(logits, share).min()))
    return least


def outside(found: dict[str, float]) -> dict[str, float]:
    """Statistics that have left their band."""
    bands = json.loads(BANDS.read_text())["bands"]
    assert found.keys() == bands.keys()
    return {name: x for name, x in found.items() if not bands[name][0] <= x <= bands[name][1]}


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("BANDS") != "write", reason="records the bands")
def test_record_the_bands(measure: Measure) -> None:
    record({seed: measure(seed) for seed in SEEDS})


def record(runs: Mapping[int, dict[str, float]]) -> None:
    """Write the bands of some seeds' statistics, and the statistics themselves."""
    bands = {}
    for name in runs[SEEDS[0]]:
        low, *_, high = sorted(found[name] for found in runs.values())
        slack = max(high - low, 0.01 * abs(high))
        bands[name] = [low - slack, high + slack]
    BANDS.write_text(json.dumps({"bands": bands, "runs": runs}, indent=1) + "\n")


@pytest.mark.slow
def test_a_run_stays_within_the_recorded_bands(measure: Measure) -> None:
    assert outside(measure(SEEDS[0])) == {}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_known_mistake_leaves_the_bands(measure: Measure, mistake: str) -> None:
    statistic, *changes = MISTAKES[mistake]
    assert statistic in outside(measure(SEEDS[0], *changes))
