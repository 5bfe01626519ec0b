"""The toy tasks: optimum, random return, snapshots and streams."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.envs import StepBatch, VectorEnv
from dreamer_async.envs.suites import toy_tasks
from tests.rollouts import Act, returns, streams

TASKS = envs.tasks("toy")


def make(task: str, num_envs: int = 8, batch_size: int = 0, seed: int = 0) -> VectorEnv:
    return envs.make("toy", task, num_envs=num_envs, batch_size=batch_size, seed=seed)


def seek_policy(rows: StepBatch) -> np.ndarray:
    goal = rows.obs["goal"].astype(np.int32) - toy_tasks.Seek.reach
    return np.sign(goal) + 1


def seek_pixels_policy(rows: StepBatch) -> np.ndarray:
    image = rows.obs["image"][..., 0]
    goal, agent = (image[:, 0] == 128).argmax(1), (image[:, -1] == 255).argmax(1)
    return np.sign(goal - agent).astype(np.int32) + 1


def match_policy(rows: StepBatch) -> np.ndarray:
    return rows.obs["cue"].astype(np.int32)


def catch_policy(rows: StepBatch) -> np.ndarray:
    return (np.sign(rows.obs["vector"][:, 0]) + 1).astype(np.int32)


def catch_pixels_policy(rows: StepBatch) -> np.ndarray:
    image = rows.obs["image"][..., 0]
    ball = (image == 255).any(1).argmax(1)
    paddle = np.where((image == 128).any((1, 2)), (image == 128).any(1).argmax(1), ball)
    return (np.sign(ball - paddle) + 1).astype(np.int32)


def reach_policy(rows: StepBatch) -> np.ndarray:
    vector = rows.obs["vector"].astype(np.float32)
    position, target = vector[:, :2], vector[:, 2:]
    velocity = (target - position) / toy_tasks.Reach.speed
    return velocity / np.maximum(1, np.linalg.norm(velocity, axis=1, keepdims=True))


def make_cue_policy(num_envs: int) -> Act:
    memory = np.zeros(num_envs, np.int32)

    def act(rows: StepBatch) -> np.ndarray:
        seen = rows.obs["vector"][:, :4]
        memory[rows.env_id] = np.where(seen.any(1), seen.argmax(1), memory[rows.env_id])
        return memory[rows.env_id]

    return act


POLICIES: dict[str, Act] = {
    "seek": seek_policy,
    "seek_pixels": seek_pixels_policy,
    "match": match_policy,
    "catch": catch_policy,
    "catch_pixels": catch_pixels_policy,
    "reach": reach_policy,
    "cue": make_cue_policy(8),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_scripted_policy_reaches_the_optimum(task: str) -> None:
    assert returns(make(task), POLICIES[task], 100) == pytest.approx(toy_tasks.TOYS[task].optimum)


@pytest.mark.parametrize("task", TASKS)
def test_random_actions_get_the_documented_return(task: str) -> None:
    env, rng = make(task, 64), np.random.default_rng(0)
    action = env.spec.action

    def act(rows: StepBatch) -> np.ndarray:
        if action.kind == "discrete":
            return rng.integers(0, action.size, len(rows.env_id), dtype=np.int32)
        return rng.uniform(-1, 1, (len(rows.env_id), action.size)).astype(np.float32)

    got = returns(env, act, 4000)
    error = got.std() / math.sqrt(len(got))
    assert abs(got.mean() - toy_tasks.TOYS[task].random_return) < 4 * error + 0.03


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_size", [0, 3])
def test_streams_depend_on_the_seed_and_not_on_the_batches(task: str, batch_size: int) -> None:
    expected = streams(make(task), 50)
    assert streams(make(task, batch_size=batch_size), 50) == expected
    assert streams(make(task, num_envs=3), 50) == {i: expected[i] for i in range(3)}
    assert streams(make(task, seed=1), 50) != expected


def test_episodes_of_reach_end_without_being_terminal() -> None:
    env = make("reach", 2)
    env.start()
    for step in range(21):
        rows = env.recv()
        assert rows.is_last.all() == (step == 20) and not rows.is_terminal.any()
        env.send(np.zeros((2, 2), np.float32), rows.env_id)
    assert env.recv().is_first.all()


def test_the_pixels_show_the_ball_and_the_paddle() -> None:
    env = make("catch_pixels", 5)
    env.start()
    image = env.recv().obs["image"]
    assert ((image == 255).sum((1, 2, 3)) == 24).all()
    assert ((image == 128).sum((1, 2, 3)) == 24).all()
    assert (image[:, 28:, 13:19] == 128).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_size", [0, 3])
def test_a_restored_run_goes_on_bit_for_bit(task: str, batch_size: int) -> None:
    env = make(task, batch_size=batch_size)
    streams(env, 17)  # leaves requests in flight, in some order
    snapshot = env.snapshot()
    assert snapshot is not None
    expected = streams(env, 40, start=False)
    other = make(task, batch_size=batch_size, seed=99)
    other.restore(snapshot)
    assert other.in_flight == 8
    assert streams(other, 40, start=False) == expected


def test_a_snapshot_does_not_change_with_the_environment() -> None:
    env = make("reach")
    streams(env, 3)
    snapshot = env.snapshot()
    assert snapshot is not None
    before = {key: value.copy() for key, value in snapshot.items()}
    streams(env, 9, start=False)
    assert all((before[key] == snapshot[key]).all() for key in before)


def test_a_snapshot_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    env = make("catch")
    streams(env, 5)
    good = env.snapshot()
    assert good is not None
    wrong = {
        "extra": good | {"task/wind": np.zeros(8)},
        "missing": {key: value for key, value in good.items() if key != "stream"},
        "int32 .3.": good | {"task/row": np.zeros(3, np.int32)},
        "float64": good | {"first": np.zeros(8)},
        "queue": good | {"queue": np.zeros(8, np.int32)},
        "possible": good | {"queue": np.full(8, 8, np.int32)},
    }
    for message, snapshot in wrong.items():
        with pytest.raises(ValueError, match=message):
            env.restore(snapshot)
    after = env.snapshot()
    assert after is not None and all((after[key] == good[key]).all() for key in good)


def test_start_again_begins_new_episodes() -> None:
    env = make("cue")
    env.start()
    rows = env.recv()
    env.send(np.zeros(8, np.int32), rows.env_id)
    env.recv()
    env.start()
    assert env.recv().is_first.all()


def test_streams_of_random_numbers_are_uniform_and_apart() -> None:
    source = toy_tasks.Streams(0, 1000)
    ids = np.arange(1000, dtype=np.int32)
    draws = np.stack([source.uniform(ids) for _ in range(50)])
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 / math.sqrt(12 * draws.size)
    assert len(np.unique(draws)) == draws.size
    assert np.abs(np.corrcoef(draws[:, :40].T) - np.eye(40)).max() < 0.7
    counts = np.bincount(source.integers(ids, 5), minlength=5)
    assert len(counts) == 5 and counts.min() > 140


def test_the_streams_follow_splitmix64() -> None:
    source = toy_tasks.Streams(0, 1)
    source.state[:] = 1234567
    got = source.uniform(np.zeros(1, np.int32))[0]
    assert got == (6457827717110365317 >> 11) * 2.0**-53  # first output of the reference code
