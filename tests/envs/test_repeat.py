"""Action repeat: as if every action had been sent several times by hand, whatever is below."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamer_async import envs
from dreamer_async.envs import ActionSpec, EnvError, EnvSpec, ObsSpec, StepBatch, VectorEnv, View
from dreamer_async.envs.repeat import RepeatEnv
from dreamer_async.envs.suite import Options
from tests.rollouts import scripted_actions, streams

KINDS = {
    "envpool, continuous": ("dmc-proprio", "finger_spin"),
    "envpool, short episodes": ("classic", "cartpole"),
    "workers": ("gym", "tests.faulty_envs:Counting"),
    "toy": ("toy", "catch"),
    "toy, pixels": ("toy", "catch_pixels"),
}
Row = tuple[bytes, ...]


@pytest.fixture(autouse=True)
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMER_ENV_CODE", KINDS["workers"][1])
    monkeypatch.chdir(tmp_path)  # VizDoom leaves a file _vizdoom.ini where it is started


def make(suite: str, task: str, repeat: int, **options: Any) -> VectorEnv:
    defaults: dict[str, Any] = {"num_envs": 3, "seed": 4}
    return envs.make(suite, task, view=View(repeat=repeat), **(defaults | options))


@cache
def by_hand(suite: str, task: str, repeat: int, steps: int) -> list[Row]:
    """Rows of environment 0 if each action is sent `repeat` times to single steps of it."""
    with make(suite, task, 1, num_envs=1) as env:
        env.start()
        rows = [env.recv()]
        while len(rows) < steps:
            before = rows[-1]
            action = scripted_actions(env.spec.action, before.env_id, np.array([len(rows) - 1]))
            rows.append(_repeat(env, action, 1 if before.is_last[0] else repeat))
    return [_bytes(row) for row in rows]


def _repeat(env: VectorEnv, action: NDArray[Any], repeat: int) -> StepBatch:
    env.send(action, np.zeros(1, np.int32))
    row = env.recv()
    if row.is_last[0] or repeat == 1:
        return row
    after = _repeat(env, action, repeat - 1)
    return after._replace(reward=row.reward + after.reward)


def _bytes(row: StepBatch) -> Row:
    columns = (*row.obs.values(), *row[2:6], *row.log.values())
    return tuple(column[0].tobytes() for column in columns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [0, 1, 2])
def test_rows_are_those_of_single_steps(kind: str, batch_size: int) -> None:
    suite, task = KINDS[kind]
    expected = by_hand(suite, task, 3, 40)
    with make(suite, task, 3, batch_size=batch_size) as env:
        got = streams(env, 40)
        assert env.spec == envs.spec(suite, task, View(repeat=3)) and env.spec.frames_per_step == 3
    assert got[0] == expected
    assert by_hand(suite, task, 2, 40) != expected  # what the check could be blind to


def balance(repeat: int, decisions: int) -> float:
    """Return of one episode of cartpole_balance without a push, whose length is asserted."""
    with make("dmc-proprio", "cartpole_balance", repeat, num_envs=2) as env:
        assert env.spec.frames_per_step == repeat
        env.start()
        total = 0.0
        for step in range(decisions + 2):
            rows = env.recv()
            assert (rows.is_first == (step in (0, decisions + 1))).all()
            assert (rows.is_last == (step == decisions)).all() and not rows.is_terminal.any()
            total += float(rows.reward[0])
            env.send(np.zeros((2, 1), np.float32), rows.env_id)
    return total


def test_an_episode_of_dmc_has_500_decisions_and_the_same_return() -> None:
    once = balance(1, 1000)
    assert 100 < once < 1000
    assert balance(2, 500) == pytest.approx(once, rel=1e-5)


def test_a_terminal_end_on_the_way_stays_one() -> None:
    with make("classic", "cartpole", 4, num_envs=1) as env:
        env.start()
        lengths: list[float] = []
        rewards: list[float] = []
        for _ in range(60):
            rows = env.recv()
            if rows.is_last[0]:
                assert rows.is_terminal[0]
                lengths.append(rows.reward[0])
            elif not rows.is_first[0]:
                rewards.append(rows.reward[0])
            env.send(np.zeros(1, np.int32), rows.env_id)
    assert set(rewards) == {4.0} and min(lengths) < 4  # the pole falls between two decisions


class Scripted(VectorEnv):
    """Below a repeat: rows by a list per environment, delivered in the order of the requests."""

    def __init__(self, options: Options, script: list[list[tuple[float, str]]]) -> None:
        self.spec = EnvSpec(
            "test", "scripted", {"x": ObsSpec((1,), "float32")}, ActionSpec("discrete", 2)
        )
        self.num_envs, self.batch_size = options.num_envs, options.batch_size
        self.asked: list[int] = []
        self.sent: list[tuple[int, int]] = []
        self.closed = False
        self._rows = [iter(rows) for rows in script]

    @property
    def in_flight(self) -> int:
        return len(self.asked)

    def start(self) -> None:
        self.asked.extend(range(self.num_envs))

    def send(self, action: NDArray[Any], env_id: NDArray[np.int32]) -> None:
        self.sent += zip(env_id.tolist(), action.tolist(), strict=True)
        self.asked += env_id.tolist()

    def recv(self) -> StepBatch:
        assert len(self.asked) >= self.batch_size, "recv would wait for ever"
        ids = np.array([self.asked.pop(0) for _ in range(self.batch_size)], np.int32)
        reward, what = zip(*(next(self._rows[i]) for i in ids), strict=True)
        first, last, terminal = (
            np.array([name in word for word in what]) for name in ("first", "last", "terminal")
        )
        obs: dict[str, Any] = {"x": np.array(reward, np.float32)[:, None]}
        return StepBatch(ids, obs, np.array(reward, np.float32), first, last, terminal)

    def close(self) -> None:
        self.closed = True


def scripted(*script: list[tuple[float, str]], repeat: int = 3) -> tuple[RepeatEnv, Scripted]:
    made: list[Scripted] = []

    def make(options: Options) -> VectorEnv:
        made.append(Scripted(options, list(script)))
        return made[0]

    count = len(script)
    env = RepeatEnv(make, Options(count, count, 0, view=View(repeat=repeat)))
    return env, made[0]


def test_an_episode_that_is_cut_below_begins_at_once_and_keeps_no_reward() -> None:
    env, below = scripted([(0, "first"), (1, ""), (0, "first"), (2, ""), (4, "last terminal")])
    env.start()
    ids = env.recv().env_id
    for action, reward, first, last in ((1, 0, True, False), (0, 6, False, True)):
        env.send(np.array([action], np.int32), ids)
        rows = env.recv()
        assert (rows.reward[0], rows.is_first[0], rows.is_last[0]) == (reward, first, last)
    assert rows.is_terminal[0]
    assert below.sent == [(0, 1), (0, 1), (0, 0), (0, 0)]


def test_rows_wait_for_their_batch_and_nobody_is_stepped_twice() -> None:
    long: list[tuple[float, str]] = [(0, "first"), (1, ""), (1, ""), (1, "")]
    env, below = scripted(long, [(0, "first"), (5, "last")])
    env.start()
    env.recv()
    env.send(np.ones(2, np.int32), np.arange(2, dtype=np.int32))
    rows = env.recv()
    assert rows.env_id.tolist() == [0, 1] and rows.reward.tolist() == [3, 5]
    assert below.sent.count((1, 1)) == 1 and below.sent.count((0, 1)) == 3
    assert env.in_flight == below.in_flight == 0
    with pytest.raises(RuntimeError, match="only 0 in flight"):
        env.recv()


def test_a_bad_batch_reaches_nobody() -> None:
    with make("classic", "cartpole", 2) as env:
        env.start()
        with pytest.raises(ValueError, match="in flight"):
            env.send(np.zeros(3, np.int32), np.arange(3, dtype=np.int32))
        env.recv()
        with pytest.raises(ValueError, match="outside"):
            env.send(np.full(3, 7, np.int32), np.arange(3, dtype=np.int32))
        assert env.in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
def test_closing_while_another_thread_receives_hangs_nobody(kind: str) -> None:
    env = make(*KINDS[kind], 50)
    env.start()
    ended: list[BaseException] = []

    def play() -> None:
        try:
            while True:
                rows = env.recv()
                env.send(env.spec.action.sample(3, np.random.default_rng(0)), rows.env_id)
        except (RuntimeError, EnvError) as error:
            ended.append(error)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    threading.Event().wait(0.3)
    env.close()
    thread.join(60)
    assert not thread.is_alive() and "closed" in str(ended[0])
    env.close()


def test_a_restored_run_goes_on_bit_for_bit() -> None:
    with make("toy", "catch", 2, num_envs=4) as env, make("toy", "catch", 2, num_envs=4) as other:
        streams(env, 17)
        snapshot = env.snapshot()
        assert snapshot is not None
        expected = streams(env, 40, start=False)
        other.restore(snapshot)
        assert other.in_flight == 4
        assert streams(other, 40, start=False) == expected
        for wrong in ({}, snapshot | {"pending": np.zeros(3, np.bool_)}):
            with pytest.raises(ValueError, match=r"pending|action"):
                other.restore(wrong)


def test_a_picture_shows_the_environment_after_all_repeats() -> None:
    with (
        make("classic", "cartpole", 2, num_envs=1, drawn=True) as env,
        make("classic", "cartpole", 1, num_envs=1, drawn=True) as once,
    ):
        action, ids = np.ones(1, np.int32), np.zeros(1, np.int32)
        for each in (env, once):
            each.start()
            each.recv()
        first = picture(env)
        assert np.array_equal(first, picture(once))
        env.send(action, ids)
        assert env.render(0) is None, "a row of it is in flight"
        env.recv()
        for _ in range(2):
            once.send(action, ids)
            once.recv()
        then = picture(env)
        assert np.array_equal(then, picture(once)) and not np.array_equal(then, first)


def picture(env: VectorEnv) -> NDArray[np.uint8]:
    drawn = env.render(0)
    assert drawn is not None
    return drawn


def test_what_cannot_be_restored_says_so_by_no_snapshot() -> None:
    with make("classic", "cartpole", 2) as env:
        assert env.snapshot() is None


@pytest.fixture(params=[("atari", "pong"), ("vizdoom", "basic")], ids=["atari", "vizdoom"])
def repeating(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    if lacking := envs.missing(request.param[0]):
        pytest.skip(lacking[0])
    yield request.param


def test_a_task_with_a_repeat_of_its_own_takes_no_other(repeating: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="4 frames by itself"):
        envs.spec(*repeating, View(repeat=2))
    with pytest.raises(ValueError, match="4 frames by itself"):
        make(*repeating, 2)
    assert envs.spec(*repeating).frames_per_step == 4
