"""Sessions: a loop of the caller's own, with real trainers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from tiny_run import TINY

import dreamer_async
from dreamer_async import ConfigError, RunFailed, Session
from dreamer_async.cli import main
from dreamer_async.config import from_dict
from dreamer_async.envs import spec_of
from dreamer_async.replay.replay import Replay
from dreamer_async.replay.setup import stored_ring_spec
from dreamer_async.run.one_caller import OneCaller
from dreamer_async.store.events import Episode, Event, Resumed, RunFinished, read_events
from dreamer_async.store.json_file import read_json
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.run_lock import RunInUse

SMALL = {
    key: value
    for key, _, value in (text.partition("=") for text in TINY)
    if key not in ("env.num_envs", "train.threads")
}
SEEN = spaces.Dict({"count": spaces.Box(0, 1e6, (1,)), "room": spaces.Discrete(5, start=3)})
DONE = spaces.Box(np.array([0, -2], np.float32), np.array([1, 5], np.float32))
LENGTH = 6
"""Rows of an episode, its first one included."""


def begin(root: Path, **more: Any) -> Session:
    options = {"size": "tiny", "threads": 1, "device": "cpu", "settings": SMALL, "runs_dir": root}
    return Session(*more.pop("spaces", (SEEN, DONE)), **(options | more))


class Robot:
    """Counts its rows, so that one can tell later which of them are stored."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def sense(self) -> dict[str, Any]:
        self.count += 1
        return {"count": np.array([self.count - 1], np.float32), "room": 3 + self.count % 5}

    def live(self, session: Session, rows: int) -> list[Any]:
        """Step episodes until so many rows were answered; the actions."""
        actions = []
        while rows > 0:
            actions.append(session.reset(self.sense()))
            for step in range(1, min(LENGTH, rows)):
                over = step == LENGTH - 1
                actions.append(session.step(self.sense(), 1.0, over, False))
            rows -= LENGTH
        return actions


def stored(run: RunDir) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of the first body, as they lie in the ring."""
    config = from_dict(read_json(run.config_path))
    ring, latents = run.replay_paths()
    spec = stored_ring_spec(config, spec_of(config.env), ring)
    with Replay.open(ring, latents, spec, seed=0, readonly=True) as replay:
        return {name: columns[0].copy() for name, columns in replay.stored()}


def so_far(session: Session) -> list[Event]:
    return [record.event for record in read_events(RunDir(session.run.path).events_path)[0]]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDir, list[Any], str]]:
    """A session that has been closed; where it is, its actions, and what was printed."""
    root = tmp_path_factory.mktemp("runs")
    with begin(root, run="robot") as session:
        actions = Robot().live(session, 20 * LENGTH)
    yield RunDir(root / "robot"), actions, str(root)


def test_every_row_is_kept_and_every_action_is_the_robots_own(
    lived: tuple[RunDir, list[Any], str],
) -> None:
    run, actions, _ = lived
    given = [action for action in actions if action is not None]
    assert all(DONE.contains(action) for action in given)
    assert len({tuple(action) for action in given}) > len(given) / 2, "a policy is asked each time"
    assert [i for i, a in enumerate(actions) if a is None] == list(range(5, 120, LENGTH))
    rows = stored(run)
    assert rows["count"].ravel().tolist() == list(range(20 * LENGTH))
    assert rows["is_first"].tolist() == [i % LENGTH == 0 for i in range(20 * LENGTH)]
    assert rows["is_terminal"].tolist() == [i % LENGTH == LENGTH - 1 for i in range(20 * LENGTH)]
    assert rows["reward"].tolist() == [float(i % LENGTH > 0) for i in range(20 * LENGTH)]


def test_it_is_saved_and_ended_as_any_run(
    lived: tuple[RunDir, list[Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, root = lived
    ended = dreamer_async.Run.find("robot", root).wait()
    assert ended.reason == "stopped" and ended.updates > 0
    assert dreamer_async.Run.find("robot", root).returns().returns.tolist() == [5.0] * 20
    assert main(["runs", "show", "robot", "--runs-dir", root]) == 0
    assert "stopped" in capsys.readouterr().out
    assert main(["eval", "robot", "--runs-dir", root]) == 69
    error = capsys.readouterr().err
    assert "no environment that could be played in" in error and len(error.splitlines()) == 1
    card = ["export", "robot", "--safetensors", str(tmp_path / "card"), "--runs-dir", root]
    assert main(card) == 2
    assert "--episodes 0 leaves that out" in capsys.readouterr().err
    assert main([*card, "--episodes", "0"]) == 0
    agent = dreamer_async.load(run.path, "cpu")
    action = agent.act({"count": np.zeros(1), "room": 4})
    assert DONE.contains(action)


def test_no_command_begins_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "session", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spaces": (SEEN, spaces.Discrete(3))}, "another action_space"),
        ({"spaces": (spaces.Box(0, 1, (2,)), DONE)}, "another observation_space"),
        ({"num_bodies": 2}, "has 1 bodies, not 2"),
        ({"size": "1m"}, "is of tiny, not size1m"),
        ({"settings": {"env.num_envs": 4}}, "num_bodies says how many"),
        ({"run": "new", "settings": {"env.args": {"level": 3}}}, "its spaces are given as such"),
        ({"run": "new", "settings": {"replay.source": "runs/a"}}, "it learns from its own steps"),
        ({"settings": {"model.units": 64}}, "model.units cannot change"),
        ({"settings": {"train.sync": True}}, "lockstep"),
        ({"run": "../robot"}, "not a name for a run"),
        ({"run": "last"}, "not a name for a run"),
        ({"run": "new", "spaces": (spaces.Sequence(DONE), DONE)}, "Sequence"),
        ({"run": "new", "spaces": (SEEN, spaces.Sequence(DONE))}, "action space"),
        ({"run": "new", "settings": {"optim.lr": -1}}, "optim.lr must be positive"),
        (
            {
                "run": "new",
                "spaces": (spaces.Box(0, 255, (32, 32, 3), np.uint8), DONE),
                "settings": {"model.depth": 3},
            },
            "model.depth times the last of model.multipliers is 12",
        ),
    ],
)
def test_what_is_not_this_session_is_refused(
    lived: tuple[RunDir, list[Any], str], options: dict[str, Any], message: str
) -> None:
    run, _, root = lived
    before = run.events_path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        begin(Path(root), **({"run": "robot"} | options))
    assert run.events_path.read_bytes() == before and os.listdir(root) == ["robot"]


def test_it_goes_on_where_it_ended(lived: tuple[RunDir, list[Any], str]) -> None:
    """Last of those that share the session: it changes it."""
    run, _, root = lived
    before = len(stored(run)["count"])
    with begin(Path(root), run="robot", size="TINY", settings={"optim.lr": 1e-3}) as session:
        robot = Robot(before)
        robot.live(session, 2 * LENGTH + 2)
        for wrong in ({"count": [1.0, 2.0], "room": 4}, {"count": [1.0], "room": 99}, None):
            with pytest.raises(ValueError, match="observation"):
                session.step(wrong, 0.0, False, False)
        with pytest.raises(ValueError, match="the action that was done"):
            session.step({"count": [1.0], "room": 4}, 0.0, False, True, action=[0.25, 9.0])
        session.step(robot.sense(), 0.0, False, True, action=np.array([0.25, 3.0]))
        with pytest.raises(ValueError, match=r"session\.reset\(obs\) begins one"):
            session.step(robot.sense(), 0.0, False, False)
        resumed = [event for event in so_far(session) if isinstance(event, Resumed)]
        assert resumed[0].env_steps == before
    rows = stored(run)
    assert rows["count"].ravel().tolist() == list(range(before + 2 * LENGTH + 3))
    done = [-0.5, 3 / 7]  # what was done instead, with the step at which it was done
    np.testing.assert_allclose(rows["action"][-2], done, atol=1e-6)
    assert not np.isclose(rows["action"][:-2], done).all(1).any()
    with pytest.raises(ValueError, match="closed"):
        session.reset(robot.sense())


def test_several_bodies_are_a_vector_environment(tmp_path: Path) -> None:
    counts = spaces.Box(0, 1e6, (1,), np.float32)
    with begin(tmp_path, spaces=(counts, spaces.Discrete(4, start=1)), num_bodies=3) as session:
        row = np.arange(3, dtype=np.float32)[:, None]
        actions = session.reset(row)
        for step in range(1, 30):
            assert actions.shape == (3,) and set(actions.tolist()) <= {1, 2, 3, 4}
            ended = [step % (body + 3) == 0 for body in range(3)]
            actions = session.step(row + 10 * step, [1.0, 2.0, 3.0], ended, [False] * 3)
        for wrong in (row[:2], np.zeros((3, 2)), None):
            with pytest.raises(ValueError, match="observation"):
                session.step(wrong, [0.0] * 3, [False] * 3, [False] * 3)
        with pytest.raises(ValueError, match="2 bodies, but there are 3"):
            session.step(row, [0.0] * 2, [False] * 3, [False] * 3)
    episodes = [event for event in session.run.events() if isinstance(event, Episode)]
    assert {event.env_id: event.score for event in episodes[:3]} == {0: 3.0, 1: 8.0, 2: 15.0}
    rows = stored(RunDir(session.run.path))
    after = np.flatnonzero(rows["is_last"][:-1]) + 1
    assert rows["is_first"][after].all() and not rows["reward"][after].any()


def test_it_serves_one_thread_at_a_time() -> None:
    """With a trainer that takes its time to answer."""
    inside, go, rows = threading.Event(), threading.Event(), []

    class Slow:
        def row(self, obs: Any, reward: Any, terminated: Any, truncated: Any, *_: Any) -> Any:
            return SimpleNamespace(obs=obs, terminated=terminated, truncated=truncated)

        def exchange(self, given: Any, is_first: Any) -> list[int]:
            inside.set()
            go.wait()
            rows.extend(given)
            return [0]

    session = object.__new__(Session)
    vars(session).update(num_bodies=1, _batched=None, _begun=True, _closed=False, _caller=Slow())
    vars(session).update(_over=np.zeros(1, bool), _stepping=OneCaller("another thread steps it"))
    with ThreadPoolExecutor(1) as other:
        first = other.submit(session.step, "a", 0.0, False, False)
        inside.wait()
        for call in (lambda: session.step("b", 0.0, False, False), lambda: session.reset("c")):
            with pytest.raises(RuntimeError, match="one caller at a time"):
                call()
        go.set()
        assert first.result() == 0
    session.step("d", 0.0, False, False)
    assert [row.obs for row in rows] == ["a", "d"], "nothing of the others is recorded"


@pytest.mark.faults
def test_a_trainer_that_dies_is_said_and_loses_nothing(tmp_path: Path) -> None:
    session = begin(tmp_path, run="robot")
    robot = Robot()
    robot.live(session, 40)
    with pytest.raises(RunInUse, match="another program steps it"):
        begin(tmp_path, run="robot")
    robot.live(session, 4)
    owner = RunDir(session.run.path).owner()
    assert owner is not None
    os.kill(owner["pid"], signal.SIGKILL)
    with open(RunDir(session.run.path).log_path, "a") as file:
        file.write("the last words\n")
    said = r"(?s)killed by signal 9; its log, .*log\.txt, ends with:\n.*the last words$"
    with pytest.raises(RunFailed, match=said):
        robot.live(session, 2)
    with pytest.raises(RunFailed, match=said):
        session.close()
    session.close()
    with begin(tmp_path, run="robot") as again:
        robot.live(again, 2)
    kept = stored(RunDir(session.run.path))["count"].ravel().tolist()
    assert kept == [*range(44), 45, 46], "the row that nobody answered is the only one missing"


def test_a_run_that_is_stopped_or_full_says_so(tmp_path: Path) -> None:
    settings = SMALL | {"train.steps": 50}
    with (
        begin(tmp_path, settings=settings) as session,
        pytest.raises(ConnectionError, match=r"session has completed"),
    ):
        Robot().live(session, 10_000)


PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.python.test_session import Robot, begin
session = begin(Path({root!r}), run="robot")
Robot().live(session, 20)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.faults
def test_a_program_that_is_killed_leaves_a_saved_run(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(path=sys.path, root=str(tmp_path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None and program.stdin is not None
    assert program.stdout.readline()
    program.kill()
    program.communicate()
    with begin(tmp_path, run="robot") as session:  # at once, as whoever restarts programs does
        Robot(20).live(session, 4)
    ends = [e for e in session.run.events() if isinstance(e, RunFinished)]
    assert [e.reason for e in ends] == ["stopped", "stopped"]
    assert stored(RunDir(tmp_path / "robot"))["count"].ravel().tolist() == list(range(24))


def test_a_trainer_that_somebody_resumed_outlives_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, run="robot").close()
    words = ["resume", "robot", "--plain", "--runs-dir", str(tmp_path)]
    trainer = subprocess.Popen([sys.executable, "-m", "dreamer_async", *words])
    run = RunDir(tmp_path / "robot")
    while run.owner() is None:
        assert trainer.poll() is None
        time.sleep(0.05)
    for life in range(2):
        with begin(tmp_path, run="robot") as session:
            Robot(4 * life).live(session, 4)
        assert trainer.poll() is None
    monkeypatch.setattr(Session, "_running_one", lambda *_: None)  # it holds the run a moment later
    with begin(tmp_path, run="robot") as session:
        Robot(8).live(session, 4)
    assert trainer.poll() is None, "and nobody waits for it"
    dreamer_async.Run.find("robot", tmp_path).stop()
    assert trainer.wait() == 0
    assert stored(run)["count"].ravel().tolist() == list(range(12))
