"""The envpool adapter, with real pools and with one that delivers garbage."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.envs import EnvError, VectorEnv, needs
from dreamer_async.envs.pool import PoolEnv, _binding
from dreamer_async.envs.pool_suite import open_pool
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.raw_pool import RawPool, RawRows
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.envs.suite import Options
from dreamer_async.envs.suites import atari
from dreamer_async.envs.vector import env_seeds
from tests.rollouts import scripted_actions, streams

GAMES = [("atari", "pong"), ("atari100k", "ms_pacman")]
SMALL = [("classic", task) for task in envs.tasks("classic")]
STATES = [("gym", "CheetahRun-v1")]


def make(suite: str, task: str, **options: Any) -> VectorEnv:
    defaults: dict[str, Any] = {"num_envs": 3, "seed": 0}
    return envs.make(suite, task, **(defaults | options))


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
    env.close()
    env.close()
    assert not [t for t in threading.enumerate() if t.name == "envpool close"]


def test_close_before_start_and_while_another_thread_receives() -> None:
    make("classic", "cartpole").close()
    env = make("atari", "pong", num_envs=2)
    env.start()
    received = threading.Thread(target=env.recv)
    received.start()
    time.sleep(0.005)
    env.close()
    received.join(60)
    assert not received.is_alive()


@pytest.mark.parametrize(
    ("env_id", "shape"),
    [("Pong-v5", ()), ("FingerSpin-v1", (2,)), ("MiniGrid-DoorKey-5x5-v0", ()), ("Taxi-v3", ())],
)
def test_the_calls_below_envpools_own_give_the_same(env_id: str, shape: tuple[int, ...]) -> None:
    """Two pools, one through envpool's documented send and recv: the same bytes in every field."""
    pools = [
        needs.import_envpool().make(env_id, env_type="gymnasium", num_envs=3, batch_size=2, seed=5,
                                    num_threads=1, max_episode_steps=20)
        for _ in range(2)
    ]  # fmt: skip
    documented, raw = pools[0], RawPool(pools[1])
    dtype = documented.spec.action_array_spec["action"].dtype
    for pool in (documented, raw):
        pool.async_reset()
    for step in range(60):
        obs, reward, terminated, truncated, info = documented.recv()
        rows = raw.recv()
        ids = info["env_id"]
        assert (rows.env_id == ids).all()
        moved = info["elapsed_step"] > 0  # else the reward is whatever was in memory
        assert (rows.reward[moved] == reward[moved]).all()
        assert (rows.done == (terminated | truncated)).all() and (rows.truncated == truncated).all()
        given = raw.observation(rows.values)
        ours, theirs = (o if isinstance(o, dict) else {"": o} for o in (given, obs))
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in ours)
        action = np.full((len(ids), *shape), step % 2).astype(dtype)
        for pool in (documented, raw):
            pool.send(action.copy(), ids.copy())


class FakePool(RawPool):
    """Deliver what real pools have been seen to deliver."""

    def __init__(self, pool: Any, batches: list[RawRows]) -> None:
        super().__init__(pool)
        self.batches = batches

    def async_reset(self) -> None:
        pass

    def send(self, action: Any, env_id: Any) -> None:
        pass

    def recv(self) -> RawRows:
        rows = self.batches.pop(0)
        return rows._replace(values=dict.fromkeys([self.index(())], rows.values[0]))


def batch(
    obs: Any = 0.0, reward: float = 0.0, env_id: tuple[int, ...] = (0, 1), done: bool = False
) -> RawRows:
    count = len(env_id)
    flags = np.full(count, done), np.zeros(count, np.bool_)
    ids = np.array(env_id, np.int32)
    steps = np.arange(count, dtype=np.int32) + 7
    return RawRows([np.full((count, 4), obs)], np.full(count, reward), *flags, ids, steps)


def fake(*batches: RawRows) -> PoolEnv:
    env = PoolEnv(PoolTask("classic", "cartpole", "CartPole-v1"), Options(2, 2, 0))
    env._pool = FakePool(env.pool, list(batches))
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
        (batch(reward=1e300), r"reward that does not fit float32: reward is 1e\+300 in step 7 of"),
        (batch(obs=np.inf), r"vector that is not finite: vector\[0\] is inf in step 7 of its"),
        (batch(obs=-1e39), r"vector that does not fit float32: vector\[0\] is -1e\+39"),
        (batch(env_id=(0,)), "1 rows instead of 2"),
        (batch(env_id=()), "0 rows instead of 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_garbage_is_never_delivered(bad: RawRows, message: str) -> None:
    env = fake(batch(), bad)
    env.recv()
    go_on(env)
    with pytest.raises(EnvError, match=message):
        env.recv()


@pytest.mark.parametrize("key", ["orientations", "height", "velocity"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300])
@pytest.mark.filterwarnings("ignore:overflow")
def test_one_number_in_any_of_several_vectors_is_enough(
    key: str, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All vectors of a batch are checked at once."""
    with make("dmc-proprio", "walker_walk", num_envs=2) as env:
        assert isinstance(env, PoolEnv)
        pool = env._pool
        index, recv = pool.index((key,)), pool.recv

        def spoiled() -> RawRows:
            rows = recv()
            rows.values[index].reshape(2, -1)[1, -1] = bad
            return rows

        env.start()
        assert np.isfinite(env.recv().obs[key]).all()
        env.send(np.zeros((2, env.spec.action.size), np.float32), np.arange(2, dtype=np.int32))
        monkeypatch.setattr(pool, "recv", spoiled)
        why = "does not fit float32" if bad == 1e300 else "is not finite"
        with pytest.raises(EnvError, match=f"environment 1 of .* delivered {key} that {why}"):
            env.recv()


def test_the_directory_of_doom_is_there_before_its_games(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two games that make it at once end the process."""
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "_vizdoom"
    with make("vizdoom", "basic", num_envs=1):
        assert directory.is_dir()
        assert _binding("Basic-v1")["vzd_path"].startswith("/proc/")
        assert _binding("CartPole-v1") == {}
    program = needs.import_envpool().make_spec("Basic-v1").config.vzd_path
    with PoolEnv(PoolTask("gym", "", "Basic-v1", {"vzd_path": program}), Options(1, 1, 0)) as env:
        assert env.pool.config["vzd_path"] == program, "what the user says comes first"
    shutil.rmtree(directory)
    directory.touch()
    with pytest.raises(EnvError, match=r"keeps files where it is started: .*File exists.*_vizdoom"):
        make("vizdoom", "basic", num_envs=1)


def test_a_missing_envpool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(EnvError, match="pip install envpool"):
        envs.spec("atari", "pong")


def frames(game: str, suite: str, resize: str) -> list[Any]:
    with envs.make(suite, game, num_envs=1, seed=3, resize=resize) as env:
        env.start()
        seen = []
        for step in range(40):
            rows = env.recv()
            seen.append((rows.obs["image"][0], float(rows.reward[0]), bool(rows.is_last[0])))
            env.send(np.array([step % env.spec.action.size], np.int32), rows.env_id)
    return seen


@pytest.mark.parametrize(("suite", "game"), [("atari", "ms_pacman"), ("atari100k", "breakout")])
def test_exact_images_are_the_official_ones_of_what_was_drawn(suite: str, game: str) -> None:
    """Against a raw pool: Pillow's bilinear filter first, then gray, truncated."""
    Image = pytest.importorskip("PIL.Image")
    task = next(
        s for s in (atari._ATARI, atari._ATARI100K) if s["gray_scale"] == (suite == "atari")
    )
    options = dict(task) | {"img_height": 210, "img_width": 160, "gray_scale": False}
    raw = needs.import_envpool().make(
        atari.env_id(game), env_type="gymnasium", num_envs=1, seed=env_seeds(3, 1), **options
    )
    raw.async_reset()
    actions = envs.spec(suite, game).action.size
    close = []
    area = frames(game, suite, "area")
    for step, (image, reward, last) in enumerate(frames(game, suite, "exact")):
        obs, raw_reward, terminated, truncated, info = raw.recv()
        side = image.shape[0]
        scaled = Image.fromarray(obs[0].transpose(1, 2, 0)).resize((side, side), 2)
        pixels = np.asarray(scaled, np.float64)
        expected = pixels
        if suite == "atari":
            expected = pixels[..., :1] * 0.299 + pixels[..., 1:2] * 0.587 + pixels[..., 2:] * 0.114
        assert np.abs(image - np.floor(expected + 1e-9)).max() == 0
        assert (reward, last) == (raw_reward[0], terminated[0] or truncated[0])
        close.append(np.abs(image.astype(int) - area[step][0]).mean())
        raw.send(np.array([step % actions], np.int32), info["env_id"])
    assert 0 < np.mean(close) < 5


def test_exact_images_are_those_of_ale_py() -> None:
    """Against the emulator itself: four frames a step, the maximum of the last two."""
    ale_py = pytest.importorskip("ale_py")
    Image = pytest.importorskip("PIL.Image")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(ale_py.roms.get_rom_path("breakout"))
    ale.reset_game()
    ale.act(0)  # the one no-op that noop_max 1 means
    options = dict(atari._ATARI100K) | {"noop_max": 1}
    task = PoolTask("atari100k", "breakout", "Breakout-v5", options, 4, True)
    legal, drawn = ale.getMinimalActionSet(), [ale.getScreenRGB()]
    with open_pool(atari._exactly(task), Options(1, 1, 0)) as env:
        env.start()
        for step in range(60):
            rows = env.recv()
            screen = np.maximum.reduce(drawn[-2:])
            expected = np.asarray(Image.fromarray(screen).resize((64, 64), 2))
            assert (rows.obs["image"][0] == expected).all(), step
            action = step % len(legal)
            drawn = []
            for _ in range(4):
                ale.act(legal[action])
                drawn.append(ale.getScreenRGB())
            env.send(np.array([action], np.int32), rows.env_id)


@pytest.mark.parametrize(
    ("suite", "task", "resize", "message"),
    [
        ("atari", "pong", "bilinear", "there are area and exact"),
        ("atari", "air_raid", "exact", "atari air_raid cannot be resized exactly"),
        ("toy", "seek", "exact", "toy seek cannot be resized exactly"),
    ],
)
def test_what_cannot_be_resized_is_refused(
    suite: str, task: str, resize: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(suite, task, num_envs=1, seed=0, resize=resize)
