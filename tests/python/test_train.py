"""Runs that a program starts and follows: real trainers, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experience import recorded_episodes, write_episodes
from tiny_run import TINY, kill_trainers, make_run

import dreamer_async
from dreamer_async import Run, RunFailed, train
from dreamer_async.config import ConfigError
from dreamer_async.run import pipeline
from dreamer_async.store.events import (
    Checkpointed,
    Episode,
    Event,
    PhaseChanged,
    RunFinished,
    RunStarted,
)
from dreamer_async.store.run_dir import RunNotFound
from tests.faulty_envs import Raising, Walk

SMALL = {
    key: value
    for key, _, value in (text.partition("=") for text in TINY)
    if key not in ("env.num_envs", "train.threads")
}
ENDLESS = 10**9


@pytest.fixture(autouse=True)
def _nobody_trains_on(tmp_path: Path) -> Iterator[None]:
    yield
    kill_trainers(tmp_path)


def begin(tmp_path: Path, *words: Any, **more: Any) -> Run:
    options = {"size": "tiny", "num_envs": 2, "threads": 1, "device": "cpu", "settings": SMALL}
    return train(*words, runs_dir=tmp_path, **(options | more))


def test_a_run_is_started_followed_and_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path, "toy", task="catch", steps=200, seed=7, name="mine")
    seen: list[Event] = list(run.events())
    ended = run.wait(timeout=0.0)
    assert (ended.reason, ended.exit_code, seen[-1]) == ("completed", 0, ended)
    assert isinstance(seen[0], RunStarted) and seen[0].seed == 7 and seen[0].run == run.name
    assert run.name.endswith("-mine") and run.path.parent == tmp_path and not run.running
    steps, returns = run.returns()
    episodes = [event for event in seen if isinstance(event, Episode)]
    assert len(episodes) > 5 and steps.tolist() == [e.env_steps for e in episodes]
    assert returns.tolist() == [e.score for e in episodes]
    agent = dreamer_async.load(run.checkpoint(), "cpu")
    assert agent.env_steps >= 200
    assert capfd.readouterr() == ("", ""), "nothing prints in the caller's process"


def test_a_live_run_tells_saves_and_stops(tmp_path: Path) -> None:
    run = begin(tmp_path, "toy", task="catch", steps=ENDLESS)
    with pytest.raises(TimeoutError, match=r"has not begun after 0\.01 s"):
        run.checkpoint(timeout=0.01)
    for event in run.events():  # live: this run does not end by itself
        if isinstance(event, PhaseChanged) and event.phase == "training":
            break
    saved = run.checkpoint(timeout=60)
    assert saved.is_dir() and saved.parent == run.path / "checkpoints"
    with pytest.raises(TimeoutError, match="it keeps running"):
        run.wait(timeout=0.1)
    other = Run.find(run.name, tmp_path)
    steps, returns = other.returns()  # once: it goes on
    assert other.running and len(steps) == len(returns)
    ended = run.stop()
    assert ended.reason == "stopped" and not other.running
    assert other.wait() == ended == other.stop()
    assert any(isinstance(event, Checkpointed) for event in other.events())


def test_a_run_learns_from_what_was_recorded(tmp_path: Path) -> None:
    folder, root = write_episodes(tmp_path / "data", recorded_episodes()), tmp_path / "runs"
    small = {"threads": 1, "device": "cpu", "runs_dir": root}
    few = {key: value for key, value in SMALL.items() if key != "replay.capacity"}
    run = dreamer_async.learn(
        folder, updates=4, env="toy/catch", size="tiny", seed=3, settings=few, **small
    )
    ended = run.wait(120)
    assert (ended.reason, ended.updates, ended.env_steps) == ("completed", 4, 0)
    again = dreamer_async.learn(run.name, updates=2, init=run.checkpoint(), **small)
    assert again.wait(120).updates == 2
    assert any("began with" in getattr(event, "message", "") for event in again.events())
    there = sorted(root.iterdir())
    for wrong, message in (
        ({"source": folder, "updates": 0}, "leaves nothing to do"),
        ({"source": run.name, "updates": 2, "env_args": {"a": 1}}, "^env_args is for folders"),
        ({"source": folder, "updates": 2, "env": lambda: None}, "has no name"),
        ({"source": "minari:no/thing-v0", "updates": 2}, "no Minari dataset"),
    ):
        with pytest.raises(ConfigError, match=message):
            dreamer_async.learn(**(small | wrong))
    assert sorted(root.iterdir()) == there, "nothing is created"


def test_an_environment_may_be_a_class_with_arguments(tmp_path: Path) -> None:
    run = begin(tmp_path, env=Walk, env_args={"pause": 0.001}, steps=60)
    assert run.wait(120).reason == "completed"
    assert "tests.faulty_envs:Walk" in (run.path / "config.json").read_text()


SCRIPT = """
import dreamer_async
from tests.faulty_envs import Walk

def build():
    return Walk()

if {guard}:
    run = dreamer_async.train(env=build, steps=60, size="tiny", num_envs=1, device="cpu",
                              runs_dir={runs!r}, settings={settings!r})
    print(run.wait(120).reason)
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_an_environment_may_be_a_function_of_the_script(guarded: bool, tmp_path: Path) -> None:
    """One that forgets its guard is told so, and does not start runs without end."""
    script, runs = tmp_path / "my_script.py", tmp_path / "runs"
    guard = "__name__ == '__main__'" if guarded else "True"
    script.write_text(SCRIPT.format(guard=guard, runs=str(runs), settings=SMALL))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path.parent,  # the script is found although it lies elsewhere
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    if guarded:
        assert (done.stdout, done.returncode) == ("completed\n", 0), done.stderr
    else:
        assert "put that call under `if __name__ == '__main__':`" in done.stderr
        assert not runs.exists()


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, "needs a suite"),
        (["atari"], {"env": "CartPole-v1"}, "not env= and 'atari'"),
        ([], {"env": Walk, "task": "x"}, "not env= and task='x'"),
        (["toy"], {"task": "catsh"}, "did you mean catch"),
        (["toy"], {"settings": {"optim.learning_rate": 1}}, "unknown setting"),
        (["toy"], {"settings": {"optim.lr": "fast"}}, "optim.lr: expected a number"),
        (["toy"], {"steps": 0}, "train.steps must be positive"),
        (
            ["toy"],
            {"task": "catch_pixels", "settings": {"model.depth": 3}},
            "model.depth times the last of model.multipliers is 12",
        ),
        (["toy"], {"size": "big"}, "unknown size"),
        (["toy"], {"device": "gpu"}, "train.device"),
        (["toy"], {"replay_dir": "/no/such/folder"}, "existing directory"),
        ([], {"env": "os:getcwd"}, "os:getcwd builds no environment"),
        ([], {"env": "no_such_module:build"}, "no module 'no_such_module'"),
    ],
)
def test_mistakes_are_said_before_anything_is_created(
    words: list[Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        begin(tmp_path / "runs", *words, **options)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_says_how(tmp_path: Path) -> None:
    run = begin(tmp_path, env=Raising, steps=100)
    with pytest.raises(RunFailed, match=r"failed \(exit code 69\)[^$]*its log"):
        run.wait(120)
    assert [e.exit_code for e in run.events() if isinstance(e, RunFinished)] == [69]


def test_a_run_that_is_killed_says_so(tmp_path: Path) -> None:
    run = begin(tmp_path, "toy", task="catch", steps=ENDLESS)
    started = next(event for event in run.events() if isinstance(event, RunStarted))
    os.kill(started.pid, 9)
    with pytest.raises(RunFailed, match="killed by signal 9"):
        run.wait()
    assert not any(isinstance(event, RunFinished) for event in run.events())
    with pytest.raises(RunFailed, match="did not end by itself"):
        Run.find("last", tmp_path).wait()


def test_runs_that_nobody_trains_are_read_as_they_are(tmp_path: Path) -> None:
    made = make_run(tmp_path, "train.steps=40")
    assert pipeline.main(made, plain=False, resume=False) == 0
    run = Run.find("last", tmp_path)
    assert run.stop() == run.wait() and run.wait().env_steps >= 40
    assert run.checkpoint().exists()
    assert np.isfinite(run.returns().returns).all()
    with pytest.raises(RunNotFound, match="no run"):
        Run.find("nothing", tmp_path)
