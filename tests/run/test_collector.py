"""The collector's part in the phases of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dreamer_async.envs.spec import StepBatch
from dreamer_async.run.collector import Collector, Player
from dreamer_async.run.limiter import TrainRatio
from dreamer_async.run.telemetry import Telemetry
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
) -> Collector:
    """One environment whose replay holds this many complete windows; notices of both sides."""
    replay: Any = SimpleNamespace(windows=windows, add=lambda *_: None)
    writer: Any = stream
    spec = SimpleNamespace(suite="toy")
    env: Any = SimpleNamespace(num_envs=1, spec=spec, notices=lambda: notices)
    actor: Any = SimpleNamespace(notices=lambda: acting)
    unused: Any = None
    ratio = ratio or TrainRatio(32.0, cost=64)
    return Collector(env, actor, unused, replay, ratio, Telemetry(writer), prefill=10)


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
