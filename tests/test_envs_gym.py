"""Gymnasium ids: envpool where it has them, worker processes elsewhere."""

from __future__ import annotations

import gymnasium
import pytest

import envs
from envs.pool import PoolEnv
from envs.processes import ProcessEnv
from tests.rollouts import streams


def test_an_id_of_envpool_is_served_by_envpool() -> None:
    with envs.make("gym", "CartPole-v1", num_envs=2, seed=0) as env:
        assert isinstance(env, PoolEnv)
        streams(env, 50)


def test_another_id_runs_in_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.gym._envpool_ids", lambda: ())
    task = "MountainCarContinuous-v0"
    assert task in gymnasium.registry
    with envs.make("gym", task, num_envs=2, seed=0) as env:
        assert isinstance(env, ProcessEnv)
        streams(env, 50)
        assert env.spec == envs.spec("gym", task)


def test_both_ways_look_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    there = envs.spec("gym", "CartPole-v1")
    monkeypatch.setattr("envs.gym._envpool_ids", lambda: ())
    assert envs.spec("gym", "CartPole-v1") == there


def test_images_that_do_not_fit_say_why() -> None:
    with pytest.raises(ValueError, match="gym Pong-v5: images of 84x84 pixels"):
        envs.spec("gym", "Pong-v5")
