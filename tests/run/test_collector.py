"""The collector's part in the phases of a run."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dreamer_async import envs
from dreamer_async.agent.policy import Policy
from dreamer_async.config import resolve
from dreamer_async.envs.spec import StepBatch
from dreamer_async.run.aio import OwnedThread
from dreamer_async.run.collector import Collector, Player
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.telemetry import Telemetry
from dreamer_async.run.weights import PolicyWeights
from dreamer_async.store.events import PhaseChanged, Warned


class Stream:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.dropped = 0

    def emit(self, event: Any) -> None:
        self.events.append(event)


def collector(
    stream: Stream,
    windows: int,
    notices: tuple[str, ...] = (),
    ratio: TrainRatio | None = None,
    acting: tuple[str, ...] = (),
    *,
    awaited: bool = False,
) -> Collector:
    """One environment whose replay holds this many complete windows; notices of both sides."""
    replay: Any = SimpleNamespace(windows=windows, add=lambda *_: None)
    writer: Any = stream
    spec = SimpleNamespace(suite="toy")
    env: Any = SimpleNamespace(num_envs=1, spec=spec, notices=lambda: notices)
    actor: Any = SimpleNamespace(notices=lambda: acting)
    unused: Any = None
    ratio = ratio or TrainRatio(32.0, cost=64)
    telemetry = Telemetry(writer)
    return Collector(env, actor, unused, replay, ratio, telemetry, prefill=10, awaited=awaited)


def one_row() -> tuple[StepBatch, Any]:
    no = np.zeros(1, bool)
    step = StepBatch(np.zeros(1, np.int32), {}, np.zeros(1, np.float32), no, no, no)
    return step, SimpleNamespace(action=np.zeros(1, np.int32), deter=None, stoch=None)


@pytest.mark.parametrize(
    ("windows", "paused", "phases"),
    [(9, False, []), (10, False, ["training"]), (10, True, ["paused"])],
)
def test_the_end_of_the_prefill_does_not_end_a_pause(
    windows: int, paused: bool, phases: list[str]
) -> None:
    """A batch that had passed the gate is stored after the run was paused."""
    stream = Stream()
    ratio = TrainRatio(32.0, cost=64)
    made = collector(stream, windows, ratio=ratio)
    ratio.paused = paused
    made.store(*one_row())
    assert ratio.started == (windows >= 10)
    assert [e.phase for e in stream.events if isinstance(e, PhaseChanged)] == phases


def test_what_environments_report_becomes_a_warning() -> None:
    stream = Stream()
    collector(stream, 0, ("environment 3 is replaced",)).store(*one_row())
    assert stream.events == [Warned("warning", "environment 3 is replaced")]


def test_what_the_actor_reports_becomes_a_warning() -> None:
    stream = Stream()
    collector(stream, 0, acting=("acting is not recorded",)).store(*one_row())
    assert stream.events == [Warned("warning", "acting is not recorded")]


def test_the_lag_of_the_policy_is_that_of_what_it_loaded() -> None:
    """Not of what was published: that may still be in the making."""
    policy: Any = SimpleNamespace(
        device=torch.device("cpu"), initial=lambda rows: (), load=lambda weights: None
    )
    actor = Player(policy, 1, 0)
    weights: Any = SimpleNamespace(version=7, fetch=lambda load, have: 5)
    actor.refresh(weights)
    assert actor.version == 5


@pytest.mark.parametrize(
    ("awaited", "said"),
    [
        (True, ["answer", "prepare", "act", "answer", "prepare", "act", "answer", "prepare"]),
        (False, ["refresh", "act", "refresh", "act"]),
    ],
)
def test_weights_are_taken_after_the_answer_where_somebody_waits(
    awaited: bool, said: list[str]
) -> None:
    made, done = collector(Stream(), 0, awaited=awaited), list[str]()
    step, acted = one_row()

    def act(rows: StepBatch) -> Any:
        done.append("act")
        return acted

    made._player = SimpleNamespace(  # type: ignore[assignment]
        prepare=lambda weights, rows: done.append("prepare"),
        refresh=lambda weights: done.append("refresh"),
        act=act,
        notices=tuple,
    )
    made._env.batch_size, made._env.send = 1, lambda action, env_id: None
    made._env.answer = lambda: done.append("answer")
    there = iter([step, step])

    def recv() -> StepBatch:
        if (rows := next(there, None)) is None:
            raise RuntimeError("no more rows")
        return rows

    made._env.recv = recv

    async def collect() -> None:
        with OwnedThread("env") as env_thread, OwnedThread("policy") as policy_thread:
            await made.collect(env_thread, policy_thread)

    with pytest.raises((RuntimeError, ExceptionGroup)) as ended:
        asyncio.run(collect())
    assert "no more rows" in "".join(map(str, getattr(ended.value, "exceptions", [ended.value])))
    assert done[: len(said)] == said


def test_the_policy_remembers_what_was_done_instead() -> None:
    config = resolve("toy", "catch", size="tiny")
    spec = envs.spec_of(config.env)
    told, free = (Player(Policy(spec, config), 2, seed=3) for _ in range(2))
    random = {name: torch.rand_like(w) - 0.5 for name, w in told.policy._weights.items()}
    for player in (told, free):
        player.policy.load(random)
    obs = {name: np.ones((2, *of.shape), of.dtype) for name, of in spec.obs.items()}
    no = np.zeros(2, bool)
    row = StepBatch(np.arange(2, dtype=np.int32), obs, np.zeros(2, np.float32), no, no, no)
    first = told.act(row).action
    assert (free.act(row).action == first).all()
    other = (1 - np.minimum(first, 1)).astype(np.int32)
    told.act(row._replace(executed=other))
    free.carry.action[:] = torch.from_numpy(other)
    free.act(row)
    assert all((mine == theirs).all() for mine, theirs in zip(told.carry, free.carry, strict=True))
    free.act(row)
    told.act(row._replace(executed=2 - told.carry.action.numpy().astype(np.int32)))
    assert not (told.carry.deter == free.carry.deter).all(), "what was done counts"


def test_getting_ready_changes_nothing_but_the_weights() -> None:
    """The noise and the memory of the environments stay; what is packed of weights is there."""
    config = resolve("toy", "catch", size="tiny")
    spec = envs.spec_of(config.env)
    actors = [Player(Policy(spec, config), 2, seed=3) for _ in range(2)]
    published = {name: torch.rand_like(w) for name, w in actors[0].policy._weights.items()}
    weights = PolicyWeights(published)
    weights.publish(published, 1)
    obs = {name: np.ones((2, *of.shape), of.dtype) for name, of in spec.obs.items()}
    no = np.zeros(2, bool)
    row = StepBatch(np.arange(2, dtype=np.int32), obs, np.zeros(2, np.float32), no, no, no)
    actors[0].prepare(weights, 2)
    actors[1].refresh(weights)
    assert actors[0].version == actors[1].version == 1
    for _ in range(3):
        one, other = (actor.act(row) for actor in actors)
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
