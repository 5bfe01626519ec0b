"""Rates, stages, episodes and the plain log."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_run import STARTED

from dreamer_async.envs.spec import StepBatch
from dreamer_async.run.telemetry import (
    EpisodeTracker,
    PlainLog,
    Position,
    Rates,
    Stages,
    Telemetry,
    process_gauges,
)
from dreamer_async.store.events import (
    Episode,
    Event,
    EventWriter,
    Gauges,
    Metrics,
    PhaseChanged,
    Warned,
    read_events,
)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_growth_per_second() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert rates.update({"steps": 10.0}) == {"steps": 0.0}
    clock.now += 2.0
    assert rates.update({"steps": 30.0, "new": 5.0}) == {"steps": 10.0, "new": 0.0}
    clock.now += 0.01
    assert rates.update({"steps": 38.0}) == {"steps": 10.0}, "not 800 a second"
    clock.now += 0.99
    assert rates.update({"steps": 40.0}) == {"steps": 10.0}, "what was not counted then is now"


def test_stages_add_up_their_blocks() -> None:
    clock = Clock()
    stages = Stages(clock)
    for seconds in (1.0, 2.0):
        with stages.measure("policy"):
            clock.now += seconds
    assert stages.totals() == {"policy": 3.0}


def test_a_long_block_counts_while_it_runs() -> None:
    clock = Clock()
    stages = Stages(clock)
    with stages.measure("update"):
        clock.now += 4.0
        assert stages.totals() == {"update": 4.0}
        clock.now += 1.0
    assert stages.totals() == {"update": 5.0}


def test_totals_never_fall_not_even_in_the_last_digit() -> None:
    clock, chance, before = Clock(), random.Random(0), 0.0
    clock.now = 12_345.6
    stages = Stages(clock)
    for _ in range(2000):
        with stages.measure("policy"):
            clock.now += chance.random()
            before = grown(stages, before)
            clock.now += chance.random()
        before = grown(stages, before)
        clock.now += chance.random()
        before = grown(stages, before)


def grown(stages: Stages, before: float) -> float:
    after = stages.totals()["policy"]
    assert after >= before
    return after


def test_a_block_that_begins_after_the_look_at_the_clock_has_not_begun() -> None:
    """As blocks of other threads do; one that ends then counts once."""
    times: list[Callable[[], float]] = [lambda: 5.0]
    stages = Stages(lambda: times.pop()())
    with stages.measure("policy"):
        times += [lambda: 4.0]
        assert stages.totals() == {"policy": 0.0}
        times += [lambda: 7.0]
    times += [lambda: 6.0]
    assert stages.totals() == {"policy": 2.0}


def rows(env_id: list[int], reward: list[float], first: list[int], last: list[int]) -> StepBatch:
    ends = np.array(last, bool)
    return StepBatch(
        np.array(env_id, np.int32),
        {},
        np.array(reward, np.float32),
        np.array(first, bool),
        ends,
        ends,
    )


def test_episodes_are_summed_per_environment_in_any_order() -> None:
    tracker = EpisodeTracker(2)
    assert tracker.update(rows([0, 1], [0, 0], [1, 1], [0, 0]), 2) == []
    assert tracker.update(rows([1], [5], [0], [0]), 3) == []
    assert tracker.update(rows([1, 0], [1, 2], [0, 0], [1, 0]), 5) == [Episode(5, 1, 6.0, 2)]
    assert tracker.update(rows([1, 0], [0, 3], [1, 0], [0, 1]), 7) == [Episode(7, 0, 5.0, 2)]


def test_running_episodes_can_be_carried_over() -> None:
    first, second = EpisodeTracker(1), EpisodeTracker(1)
    first.update(rows([0], [0], [1], [0]), 1)
    first.update(rows([0], [2], [0], [0]), 2)
    second.load_state(first.state())
    assert second.update(rows([0], [3], [0], [1]), 3) == [Episode(3, 0, 5.0, 2)]


def test_the_plain_log_speaks_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    log = PlainLog(out, seconds=5.0, clock=clock)
    log.show(PhaseChanged("training", 10, 0))
    log.show(Episode(20, 0, 1.0, 9))
    log.show(Metrics(3, 20, {"loss/reward": 0.5}))
    log.show(Gauges(30, 3, {"rate/updates": 2.0}))
    clock.now += 6.0
    log.show(Gauges(40, 4, {"rate/updates": 2.0}))
    log.show(Warned("warning", "disk nearly full"))
    lines = out.getvalue().splitlines()
    assert lines[0] == "training  (step 10, update 0)"
    assert lines[1].startswith("step 40  update 4  return 1.00 (last 1)  loss/reward 0.5")
    assert lines[2] == "warning: disk nearly full"


def test_the_plain_log_counts_frames_where_they_are_not_steps() -> None:
    clock, out = Clock(), io.StringIO()
    log = PlainLog(out, seconds=5.0, clock=clock)
    log.show(STARTED)
    log.show(PhaseChanged("training", 1000, 0))
    clock.now += 6.0
    log.show(Gauges(2500, 4, {}))
    lines = out.getvalue().splitlines()
    assert "frames per agent step: 4" in lines[0]
    assert lines[1] == "training  (step 1,000 (4,000 frames), update 0)"
    assert lines[2].startswith("step 2,500 (10,000 frames)  update 4")


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("", "on cpu, 2 environments"),
        (
            "kernels-x86-64-v4-6f0c2f8d1b7a9e35",
            "on cpu with native functions prebuilt for x86-64-v4,",
        ),
        ("kernels-6f0c2f8d1b7a9e35", "on cpu with native functions built for this processor,"),
    ],
)
def test_the_plain_log_says_what_computes(library: str, said: str) -> None:
    out = io.StringIO()
    PlainLog(out).show(replace(STARTED, native=library))
    assert said in out.getvalue()


def test_a_closed_pipe_silences_the_log() -> None:
    out = io.StringIO()
    log = PlainLog(out)
    out.close()
    log.show(Warned("warning", "nobody reads this"))
    log.show(Warned("warning", "nor this"))


class Listening:
    """Hears events, and fails from the second on if told to."""

    def __init__(self, *, fails: bool) -> None:
        self.heard: list[Event] = []
        self._fails = fails

    def show(self, event: Event) -> None:
        self.heard.append(event)
        if self._fails and len(self.heard) > 1:
            raise OSError(28, "No space left on device")


def test_a_listener_that_fails_is_said_once_and_not_asked_again(tmp_path: Path) -> None:
    good, bad = Listening(fails=False), Listening(fails=True)
    with EventWriter(tmp_path / "events.jsonl", 0) as writer:
        telemetry = Telemetry(writer, bad, good)
        for _ in range(4):
            telemetry.warn("news")
    assert len(bad.heard) == 2
    told = [e.message for e in good.heard if isinstance(e, Warned)]
    assert told.count("news") == 4
    (lost,) = (message for message in told if message != "news")
    assert lost.startswith("Listening failed and gets no more events") and "No space" in lost
    written, _ = read_events(tmp_path / "events.jsonl")
    assert len(written) == 5


def test_listeners_that_fail_together_are_each_said_once(tmp_path: Path) -> None:
    """Such as two trackers on one full disk: the warning about one reaches the other."""
    good, bad, worse = (Listening(fails=fails) for fails in (False, True, True))
    with EventWriter(tmp_path / "events.jsonl", 0) as writer:
        telemetry = Telemetry(writer, bad, worse, good)
        for _ in range(4):
            telemetry.warn("news")
    assert len(bad.heard) == len(worse.heard) == 2
    told = [e.message for e in good.heard if isinstance(e, Warned)]
    assert told.count("news") == 4 and len(told) == 6


def test_where_the_run_stands_is_what_its_owners_count(tmp_path: Path) -> None:
    """Asked anew each time: nobody has to pass a copy on."""
    steps = 0
    listening = Listening(fails=False)
    with EventWriter(tmp_path / "events.jsonl", 0) as writer:
        telemetry = Telemetry(writer, listening)
        telemetry.enter("prefill")
        telemetry.follow(lambda: Position(steps, updates=steps // 10))
        steps = 70
        telemetry.enter("training")
    assert listening.heard == [PhaseChanged("prefill", 0, 0), PhaseChanged("training", 70, 7)]


def test_memory_counts_the_processes_of_environments() -> None:
    hold = "import sys; held = b'x' * 100_000_000; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"\n"
        alone, together = process_gauges(), process_gauges([worker.pid])
        worker.kill()
    assert alone["memory/workers_gb"] == 0 < alone["memory/rss_gb"]
    assert 0.1 < together["memory/workers_gb"] < 0.2
    own = together["memory/rss_gb"] - together["memory/workers_gb"]
    assert own == pytest.approx(alone["memory/rss_gb"], abs=0.05)
    assert process_gauges([worker.pid])["memory/workers_gb"] == 0, "it is gone"
