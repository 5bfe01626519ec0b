"""What returns are measured against: the tables say what their sources say."""

from __future__ import annotations

import csv

import gymnasium
import pytest

from dreamer_async.envs.suites import classic
from dreamer_async.envs.suites.toy_tasks import TOYS
from dreamer_async.scores.references import CEILINGS, Ceiling, ceiling


def rows(suite: str) -> dict[str, float]:
    with CEILINGS.open(encoding="utf-8") as file:
        table = csv.reader(line for line in file if not line.startswith("#"))
        return {task: float(value) for name, task, value, _ in table if name == suite}


def test_toys_have_their_optimum() -> None:
    assert rows("toy") == {name: toy.optimum for name, toy in TOYS.items()}


def test_gymnasium_says_what_is_solved() -> None:
    known = {name: gymnasium.spec(name).reward_threshold for name in rows("gym")}
    assert rows("gym") == known
    for task, value in rows("classic").items():
        assert gymnasium.spec(classic.ENV_IDS[task]).reward_threshold == value


@pytest.mark.parametrize(
    ("suite", "task", "expected"),
    [
        ("toy", "catch", Ceiling(1.0, "optimum")),
        ("gym", "CartPole-v1", Ceiling(475.0, "solved")),
        ("dmc-vision", "walker_walk", Ceiling(1000.0, "most")),
        ("atari", "pong", Ceiling(14.6, "human")),
        ("atari100k", "pong", Ceiling(14.6, "human")),
        ("procgen", "ninja", Ceiling(10.0, "best")),
        ("toy", "unknown", None),
        ("minigrid", "empty", None),
    ],
)
def test_what_is_known_of_a_task(suite: str, task: str, expected: Ceiling | None) -> None:
    assert ceiling(suite, task) == expected
