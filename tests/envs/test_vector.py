"""What the interface refuses, before any environment sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.envs import ActionSpec, EnvError, EnvSpec, ObsSpec, StepBatch, VectorEnv
from dreamer_async.envs.vector import Requests, check_rows, env_seed, env_seeds

IDS = np.arange(4, dtype=np.int32)
DISCRETE: dict[str, tuple[Any, Any]] = {
    "float action": (np.zeros(4, np.float32), IDS),
    "int64 action": (np.zeros(4, np.int64), IDS),
    "list action": ([0, 0, 0, 0], IDS),
    "no action": (None, IDS),
    "short action": (np.zeros(3, np.int32), IDS),
    "long action": (np.zeros(5, np.int32), IDS),
    "matrix action": (np.zeros((4, 1), np.int32), IDS),
    "action too large": (np.array([0, 0, 2, 0], np.int32), IDS),
    "action huge": (np.array([0, 0, 10**8, 0], np.int32), IDS),
    "action negative": (np.array([0, -1, 0, 0], np.int32), IDS),
    "id too large": (np.zeros(4, np.int32), IDS + 1),
    "id negative": (np.zeros(4, np.int32), IDS - 1),
    "id huge": (np.zeros(1, np.int32), np.array([2**31 - 1], np.int32)),
    "id twice": (np.zeros(4, np.int32), np.array([0, 1, 1, 3], np.int32)),
    "int64 id": (np.zeros(4, np.int32), IDS.astype(np.int64)),
    "list id": (np.zeros(4, np.int32), [0, 1, 2, 3]),
    "scalar id": (np.zeros(1, np.int32), np.int32(0)),
    "matrix id": (np.zeros(4, np.int32), IDS[:, None]),
    "nothing": (np.zeros(0, np.int32), IDS[:0]),
}
CONTINUOUS: dict[str, tuple[Any, Any]] = {
    "nan": (np.full((4, 1), np.nan, np.float32), IDS),
    "inf": (np.full((4, 1), np.inf, np.float32), IDS),
    "float64 action": (np.zeros((4, 1)), IDS),
    "int action": (np.zeros((4, 1), np.int32), IDS),
    "vector action": (np.zeros(4, np.float32), IDS),
    "wide action": (np.zeros((4, 2), np.float32), IDS),
}
OPENERS = {
    "toy": lambda: envs.make("toy", "cue", num_envs=4, seed=0),
    "envpool": lambda: envs.make("classic", "cartpole", num_envs=4, seed=0),
}


@pytest.fixture(params=OPENERS, scope="module")
def discrete(request: pytest.FixtureRequest) -> Iterator[VectorEnv]:
    with OPENERS[request.param]() as env:
        env.start()
        env.recv()
        yield env


@pytest.fixture(scope="module")
def pendulum() -> Iterator[VectorEnv]:
    with envs.make("classic", "pendulum", num_envs=4, seed=0) as env:
        env.start()
        env.recv()
        yield env


@pytest.mark.parametrize("case", DISCRETE)
def test_a_bad_batch_is_refused_and_does_no_harm(discrete: VectorEnv, case: str) -> None:
    action, env_id = DISCRETE[case]
    if discrete.spec.action.size > 2 and case == "action too large":
        action = action * 2
    with pytest.raises(ValueError):
        discrete.send(action, env_id)
    assert discrete.in_flight == 0
    discrete.send(np.zeros(4, np.int32), IDS)
    assert discrete.recv().env_id.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("case", CONTINUOUS)
def test_a_bad_continuous_batch_is_refused(pendulum: VectorEnv, case: str) -> None:
    with pytest.raises(ValueError):
        pendulum.send(*CONTINUOUS[case])
    assert pendulum.in_flight == 0
    pendulum.send(np.full((4, 1), 1e30, np.float32), IDS)  # finite, and so clipped
    assert np.isfinite(pendulum.recv().reward).all()


def test_one_request_per_environment(discrete: VectorEnv) -> None:
    discrete.send(np.zeros(2, np.int32), IDS[:2])
    with pytest.raises(ValueError, match=r"\[1\] already"):
        discrete.send(np.zeros(2, np.int32), IDS[1:3])
    assert discrete.in_flight == 2
    with pytest.raises(RuntimeError, match="only 2 in flight"):
        discrete.recv()
    with pytest.raises(RuntimeError, match="2 rows still in flight"):
        discrete.start()
    discrete.send(np.zeros(2, np.int32), IDS[:1:-1].copy())
    assert discrete.recv().env_id.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("opener", OPENERS)
def test_a_closed_environment_says_so(opener: str) -> None:
    env = OPENERS[opener]()
    env.start()
    env.close()
    env.close()
    for call in (env.start, env.recv, lambda: env.send(np.zeros(4, np.int32), IDS)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_only_one_thread_receives() -> None:
    requests = Requests(ActionSpec("discrete", 2), 4, 4)
    requests.take_all()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with requests.receiving:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with pytest.raises(RuntimeError, match="another thread"), requests.receiving:
        pass
    with requests.draining(0.01) as alone:
        assert not alone
    leave.set()
    thread.join()
    with requests.draining() as alone:
        assert alone


def test_a_row_that_nobody_asked_for_is_an_error() -> None:
    requests = Requests(ActionSpec("discrete", 2), 4, 2)
    requests.take(np.zeros(2, np.int32), IDS[:2])
    with pytest.raises(EnvError, match=r"\[1, 2\] delivered"):
        requests.put(IDS[1:3])


def test_books_survive_many_threads() -> None:
    requests = Requests(ActionSpec("discrete", 2), 64, 1)
    zero = np.zeros(1, np.int32)

    def work(env_id: int) -> None:
        for _ in range(300):
            requests.take(zero, np.array([env_id], np.int32))
            requests.put(np.array([env_id], np.int32))

    threads = [threading.Thread(target=work, args=(env_id,)) for env_id in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert requests.in_flight == 0


SPEC = EnvSpec(
    "suite",
    "task",
    {"vector": ObsSpec((2,), "float32"), "state": ObsSpec((), "int32", 3)},
    ActionSpec("discrete", 2),
)


def rows(**changes: Any) -> StepBatch:
    off = np.zeros(2, np.bool_)
    obs: dict[str, Any] = {"vector": np.zeros((2, 2), np.float32), "state": np.zeros(2, np.int32)}
    batch = StepBatch(np.array([5, 7], np.int32), obs, np.zeros(2, np.float32), off, off, off)
    obs |= {key: changes.pop(key) for key in list(changes) if key in obs}
    return batch._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.array([0, np.nan], np.float32)}, "environment 7 .* reward .* not finite"),
        (
            {"vector": np.array([[0, np.inf], [0, 0]], np.float32)},
            r"environment 5 .* vector\[1\] is inf",
        ),
        ({"state": np.array([0, 3], np.int32)}, "7 .* state outside 0 to 2: state is 3"),
        ({"state": np.array([-1, 0], np.int32)}, "environment 5 .* state outside"),
        ({"vector": np.array([[0, 0], [np.nan, 0]], np.float32)}, r"7 .* vector\[0\] is nan"),
        ({"vector": np.zeros((2, 3), np.float32)}, r"float32 \[2, 3\], not float32 \[2, 2\]"),
        ({"vector": np.zeros((2, 2))}, "float64"),
    ],
)
def test_garbage_from_an_environment_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=message):
        check_rows(SPEC, rows(**changes))


def test_good_rows_pass_unchanged() -> None:
    batch = rows()
    assert check_rows(SPEC, batch) is batch


def test_seeds_are_31_bits_and_apart() -> None:
    seeds = [seed for run in range(50) for seed in env_seeds(run, 20)]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) < 2**31
    assert env_seeds(3, 2) == env_seeds(3, 20)[:2]
    assert env_seed(0, 0, 1) not in seeds
    assert len(env_seeds(2**80, 3)) == 3
