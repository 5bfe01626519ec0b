"""The envpool adapter, with real pools and with one that delivers garbage."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import envs
from envs import EnvError, VectorEnv, atari
from envs.pool import PoolEnv
from envs.pool_task import PoolTask, open_pool
from envs.spec import ObsSpec
from envs.suite import Options
from tests.rollouts import scripted_actions, streams

GAMES = [("atari", "pong"), ("atari100k", "ms_pacman")]
SMALL = [("classic", task) for task in envs.tasks("classic")]
STATES = [("gym", "CheetahRun-v1")]


def make(suite: str, task: str, **options: Any) -> VectorEnv:
    return envs.make(suite, task, **({"num_envs": 3, "seed": 0} | options))


@pytest.mark.parametrize(("suite", "task"), GAMES + SMALL + STATES)
def test_streams_depend_on_the_seed_and_on_nothing_else(suite: str, task: str) -> None:
    steps = 50
    with make(suite, task) as env:
        expected = streams(env, steps)
        assert env.spec == envs.spec(suite, task)
    for options in ({"batch_size": 2}, {"threads": 1, "num_envs": 2}):
        with make(suite, task, **options) as env:
            got = streams(env, steps)
        assert got == {env_id: expected[env_id] for env_id in got}, options


@pytest.mark.parametrize(("suite", "task"), [("atari", "breakout"), ("classic", "cartpole")])
def test_another_seed_gives_other_streams(suite: str, task: str) -> None:
    with make(suite, task, num_envs=2) as one, make(suite, task, num_envs=2, seed=1) as other:
        first, second = streams(one, 40), streams(other, 40)
    assert len({str(stream) for stream in [*first.values(), *second.values()]}) == 4


@pytest.mark.parametrize(
    ("suite", "game", "shape", "actions"),
    [
        ("atari", "pong", (96, 96, 1), 18),
        ("atari", "adventure", (96, 96, 1), 18),
        ("atari100k", "pong", (64, 64, 3), 6),
        ("atari100k", "breakout", (64, 64, 3), 4),
    ],
)
def test_atari_looks_as_the_protocols_say(
    suite: str, game: str, shape: tuple[int, ...], actions: int
) -> None:
    spec = envs.spec(suite, game)
    assert spec.obs == {"image": ObsSpec(shape, "uint8")}
    assert (spec.action.kind, spec.action.size) == ("discrete", actions)
    assert spec.frames_per_step == 4


def test_the_paddles_of_pong_are_upright_and_on_either_side() -> None:
    with make("atari100k", "pong") as env:
        env.start()
        rows = env.recv()
        for _ in range(30):
            env.send(np.zeros(3, np.int32), rows.env_id)
            rows = env.recv()
    field = rows.obs["image"][0, 12:58].astype(int)  # between the walls
    green, orange = np.array([92, 186, 92]), np.array([213, 130, 74])
    right = (np.abs(field - green).sum(-1) < 60).any(0).nonzero()[0]
    left = (np.abs(field - orange).sum(-1) < 60).any(0).nonzero()[0]
    assert len(right) and right.min() >= 54
    assert len(left) and left.max() <= 10


def test_the_end_of_an_episode_is_terminal_also_by_the_time_limit_in_atari_only() -> None:
    options = dict(atari._ATARI) | {"max_episode_steps": 5}
    for protocol in (True, False):
        task = PoolTask("atari", "pong", "Pong-v5", options, 4, protocol)
        with open_pool(task, Options(2, 2, 0)) as env:
            env.start()
            for step in range(7):
                rows = env.recv()
                assert rows.is_first.all() == (step in (0, 6))
                assert rows.is_last.all() == (step == 5)
                assert rows.is_terminal.all() == (step == 5 and protocol)
                env.send(np.zeros(2, np.int32), rows.env_id)


def test_a_time_limit_of_classic_control_is_not_terminal() -> None:
    with make("classic", "pendulum", num_envs=1) as env:
        env.start()
        ends = []
        for _ in range(201):
            rows = env.recv()
            ends.append((bool(rows.is_last[0]), bool(rows.is_terminal[0])))
            env.send(np.zeros((1, 1), np.float32), rows.env_id)
    assert ends == [(False, False)] * 200 + [(True, False)]


def test_continuous_actions_reach_the_bounds_and_stop_there() -> None:
    with make("classic", "pendulum", num_envs=2) as env:
        env.start()
        env.recv()
        env.send(np.array([[1.0], [50.0]], np.float32), np.arange(2, dtype=np.int32))
        torque_cost = 0.001 * 2.0**2
        rows = env.recv()
        env.send(np.zeros((2, 1), np.float32), rows.env_id)
        assert (rows.reward < -torque_cost).all()


@pytest.mark.parametrize("batch_size", [0, 2])
def test_a_bad_batch_never_reaches_the_pool(batch_size: int) -> None:
    with make("atari", "pong", batch_size=batch_size) as env:
        env.start()
        ids = env.recv().env_id
        bad = np.zeros(len(ids), np.int32)
        bad[-1] = 18
        with pytest.raises(ValueError, match="outside 0 to 17"):
            env.send(bad, ids)
        env.send(np.zeros(len(ids), np.int32), ids)
        env.recv()


def test_in_lockstep_actions_may_come_in_parts_and_any_order() -> None:
    with make("classic", "cartpole", num_envs=4) as env:
        expected = streams(env, 30)
    with make("classic", "cartpole", num_envs=4) as env:
        env.start()
        out: dict[int, list[bytes]] = {i: [] for i in range(4)}
        for step in range(30):
            rows = env.recv()
            for i in range(4):
                out[i].append(rows.obs["vector"][i].tobytes())
            action = scripted_actions(env.spec.action, rows.env_id, np.full(4, step))
            for part in ([3], [0, 2], [1]):
                env.send(action[part], rows.env_id[part])
    assert out == {i: [row[0] for row in stream] for i, stream in expected.items()}


@pytest.mark.parametrize("batch_size", [4, 3])
@pytest.mark.parametrize("sent", range(5))
@pytest.mark.parametrize("task", ["cartpole", "pendulum"])
def test_close_does_not_hang_whatever_is_in_flight(task: str, batch_size: int, sent: int) -> None:
    env = make("classic", task, num_envs=4, batch_size=batch_size)
    zeros = np.zeros((4, *env.spec.action.shape), env.spec.action.dtype)
    env.start()
    for _ in range(3):
        rows = env.recv()
        env.send(zeros[:batch_size], rows.env_id)
    rows = env.recv()
    part = rows.env_id[: min(sent, batch_size)]
    if len(part):
        env.send(zeros[: len(part)], part)
    began = time.monotonic()
    env.close()
    env.close()
    assert time.monotonic() - began < 2
    assert not [t for t in threading.enumerate() if t.name == "envpool close"]


def test_close_before_start_and_while_another_thread_receives() -> None:
    make("classic", "cartpole").close()
    env = make("atari", "pong", num_envs=2)
    env.start()
    received = threading.Thread(target=env.recv)
    received.start()
    time.sleep(0.005)
    env.close()
    received.join(5)
    assert not received.is_alive()


class FakePool:
    """Deliver what real pools have been seen to deliver."""

    def __init__(self, batches: list[tuple[Any, ...]]) -> None:
        self.batches = batches

    def async_reset(self) -> None:
        pass

    def send(self, action: Any, env_id: Any) -> None:
        pass

    def recv(self) -> tuple[Any, ...]:
        return self.batches.pop(0)


def batch(
    obs: Any = 0.0, reward: float = 0.0, env_id: tuple[int, ...] = (0, 1), done: bool = False
) -> tuple[Any, ...]:
    count = len(env_id)
    flags = np.full(count, done), np.zeros(count, np.bool_)
    info = {"env_id": np.array(env_id), "elapsed_step": np.full(count, 7)}
    return np.full((count, 4), obs), np.full(count, reward), *flags, info


def fake(*batches: tuple[Any, ...]) -> PoolEnv:
    env = PoolEnv(PoolTask("classic", "cartpole", "CartPole-v1"), Options(2, 2, 0))
    env._pool = FakePool(list(batches))
    env.start()
    return env


def go_on(env: PoolEnv) -> None:
    env.send(np.zeros(2, np.int32), np.arange(2, dtype=np.int32))


@pytest.mark.parametrize("reward", [4.4e36, float("nan"), -1.5])
def test_the_reward_of_a_reset_row_is_whatever_was_in_memory_and_becomes_zero(
    reward: float,
) -> None:
    env = fake(batch(reward=reward), batch(reward=2.0, done=True), batch(reward=reward))
    assert not env.recv().reward.any()
    go_on(env)
    assert env.recv().reward.tolist() == [2, 2]
    go_on(env)
    rows = env.recv()
    assert rows.is_first.all() and not rows.reward.any()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (batch(reward=float("nan")), "environment 0 of classic cartpole .* reward"),
        (batch(reward=1e300), "reward that is not finite"),
        (batch(obs=np.inf), "vector that is not finite"),
        (batch(env_id=(0,)), "1 rows instead of 2"),
        (batch(env_id=()), "0 rows instead of 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_garbage_is_never_delivered(bad: tuple[Any, ...], message: str) -> None:
    env = fake(batch(), bad)
    env.recv()
    go_on(env)
    with pytest.raises(EnvError, match=message):
        env.recv()


def test_a_missing_envpool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(EnvError, match="pip install envpool"):
        envs.spec("atari", "pong")
