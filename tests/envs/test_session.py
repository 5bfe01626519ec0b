"""Both ends of a session's connection, and spaces as JSON."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async import envs
from dreamer_async.envs.native import space_json
from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.session import address
from dreamer_async.envs.session.caller import Caller, Hung
from dreamer_async.envs.session.server import PARENT, Server
from dreamer_async.envs.values import BrokenRule
from dreamer_async.envs.view import PLAIN, View

SEEN = spaces.Dict({"pose": spaces.Box(-np.inf, np.inf, (2,)), "room": spaces.Discrete(5, start=3)})
DONE = spaces.Box(np.array([0, -2], np.float32), np.array([1, 6], np.float32))
VIEW = View(
    args={"observation_space": space_json.encode(SEEN), "action_space": space_json.encode(DONE)},
)
SPEC = envs.spec("session", "robot", VIEW)

KINDS: list[Any] = [
    spaces.Box(-np.inf, np.inf, (3,), np.float64),
    spaces.Box(np.array([[0, -1], [2, -np.inf]]), np.array([[1.0, 5], [3, 7]]), dtype=np.float64),
    spaces.Box(0, 255, (64, 48, 3), np.uint8),
    spaces.Box(-(2**63), 2**63 - 1, (), np.int64),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [-1, 0]])),
    spaces.MultiBinary((2, 3)),
    spaces.Text(7, min_length=2, charset="abc"),
    spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]),
    spaces.Dict({"a": spaces.Dict({"z": spaces.Discrete(3)}), "b": spaces.MultiBinary(4)}),
]


@pytest.mark.parametrize("space", KINDS, ids=str)
def test_spaces_survive_json(space: gymnasium.Space[Any]) -> None:
    text = json.dumps(space_json.encode(space), allow_nan=False)
    again = space_json.decode(json.loads(text))
    assert again == space and again.dtype == space.dtype
    assert json.dumps(space_json.encode(again)) == text


@pytest.mark.parametrize("data", [None, {}, {"kind": "Sequence"}, {"kind": "Box", "low": "x"}, 3])
def test_what_is_no_space_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        space_json.decode(data)


def test_spaces_that_no_agent_can_use_are_named() -> None:
    view = View(
        args={**VIEW.args, "observation_space": space_json.encode(spaces.Graph(SEEN["pose"], None))}
    )
    with pytest.raises(UnsupportedSpace, match=r"Graph.*has no fixed size"):
        envs.spec("session", "robot", view)


def test_a_session_is_described_by_its_spaces_and_cannot_be_played() -> None:
    assert SPEC.obs["pose"].shape == (2,) and SPEC.obs["room"].classes == 5
    assert (SPEC.action.kind, SPEC.action.size) == ("continuous", 2)
    with pytest.raises(ValueError, match=r"dreamer_async\.Session"):
        envs.spec("session", "robot")
    with pytest.raises(envs.EnvError, match="no environment that could be played in"):
        envs.make("session", "robot", num_envs=1, seed=0, view=VIEW)


def test_sessions_are_no_suite_that_anybody_could_name() -> None:
    assert "session" not in envs.suites()
    with pytest.raises(envs.UnknownTask):
        envs.find_suite("session")


class Ends:
    """A server whose policy is a constant, in a thread, and what it was given."""

    def __init__(
        self,
        folder: Path,
        bodies: int,
        kind: type[Server] = Server,
        before_storing: Callable[[], object] | None = None,
    ) -> None:
        """Rows take a moment to be stored: an answer that did not wait would be there by then."""
        self._before_storing = before_storing or partial(time.sleep, 0.01)
        self.gone = threading.Event()
        self.server = kind(SPEC, bodies, folder, self.gone.set)
        self.rows: list[Any] = []
        self.stored = 0
        """Rows that were stored, each of them before its answer."""
        self.folder, self.bodies = folder, bodies
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.server.start()
        self._thread.start()

    def _serve(self) -> None:
        action = np.tile(np.array([0.0, 0.5], np.float32), (self.bodies, 1))
        try:
            while True:
                step = self.server.recv()
                self.server.send(action, step.env_id)
                self._before_storing()
                self.rows.append(step)
                self.stored += 1
        except RuntimeError:
            pass  # closed

    def call(self) -> Caller:
        line = address.connect(self.folder)
        assert line is not None
        return Caller(line, SPEC, self.bodies, (SEEN, DONE), PLAIN)

    def close(self) -> None:
        self.server.close()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path, 2)
    yield ends
    ends.close()


def sense(caller: Caller, reward: Any = 1.0, terminated: Any = False) -> Any:
    return caller.row({"pose": [1.0, 2.0], "room": 4}, reward, terminated, False)


def test_rows_go_there_and_actions_come_back_in_the_programs_units(ends: Ends) -> None:
    caller = ends.call()
    actions = caller.exchange([sense(caller), sense(caller)], np.array([True, False]))
    assert ends.stored == 1, "an answer is a promise that its row is stored"
    for action in actions:
        np.testing.assert_allclose(action, [0.5, 4.0])
        assert DONE.contains(action)
    caller.exchange([sense(caller, 2.5), sense(caller, 3.5, True)], np.zeros(2, bool))
    first, second = ends.rows
    assert first.is_first.tolist() == [True, False] and first.reward.tolist() == [0.0, 1.0]
    assert second.reward.tolist() == [2.5, 3.5] and second.is_last.tolist() == [False, True]
    assert second.is_terminal.tolist() == [False, True] and second.obs["room"].tolist() == [1, 1]
    caller.close()


def test_what_was_done_instead_comes_with_the_next_row(ends: Ends) -> None:
    caller = ends.call()
    caller.exchange([sense(caller)] * 2, np.ones(2, bool))
    done = caller.row({"pose": [1.0, 2.0], "room": 4}, 1.0, False, False, np.array([0.75, -2.0]))
    caller.exchange([done, sense(caller)], np.zeros(2, bool))
    actions = caller.exchange([sense(caller)] * 2, np.zeros(2, bool))
    executed = [rows.executed for rows in ends.rows]
    assert executed[0] is None and executed[2] is None
    np.testing.assert_allclose(executed[1], [[0.5, -1.0], [0.0, 0.5]], atol=1e-6)
    np.testing.assert_allclose(actions, [[0.5, 4.0]] * 2)
    caller.close()


class Hasty(Server):
    """Answers before anything is stored."""

    def send(self, action: Any, env_id: Any) -> None:
        super().send(action, env_id)
        self.answer()


def test_an_answer_that_comes_too_early_would_be_seen(tmp_path: Path) -> None:
    seen = threading.Event()
    ends = Ends(tmp_path, 1, Hasty, lambda: seen.wait(60))
    caller = ends.call()
    caller.exchange([sense(caller)], np.ones(1, bool))
    assert ends.stored == 0
    seen.set()
    caller.close()
    ends.close()


def test_a_wrong_value_is_refused_before_anything_is_sent(ends: Ends) -> None:
    caller = ends.call()
    for obs, reward in (({"pose": [1.0, np.nan], "room": 4}, 0), ({"pose": [1, 2], "room": 9}, 0)):
        with pytest.raises(BrokenRule, match=r"observation (pose|room)"):
            caller.row(obs, reward, False, False)
    with pytest.raises(BrokenRule, match="the reward"):
        sense(caller, None)
    assert ends.rows == []
    caller.close()


def test_one_program_steps_and_a_second_one_hears_so(ends: Ends) -> None:
    caller = ends.call()
    with pytest.raises(Hung, match="another program"):
        ends.call()
    caller.exchange([sense(caller)] * 2, np.ones(2, bool))
    caller.close()
    again = None
    while again is None:  # until the server has noticed
        try:
            again = ends.call()
        except Hung:
            time.sleep(0.01)
    again.exchange([sense(again)] * 2, np.ones(2, bool))
    assert len(ends.rows) == 2 and not ends.gone.is_set()
    assert ends.server.notices() == ["the program that stepped this session has gone"]
    again.close()


def test_a_server_of_a_session_leaves_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARENT, str(os.getppid()))
    ends = Ends(tmp_path, 1)
    caller = ends.call()
    caller.exchange([sense(caller)], np.ones(1, bool))
    assert not ends.gone.is_set()
    caller.close()
    assert ends.gone.wait(60)
    assert address.connect(tmp_path) is None, "the next program means the next trainer"
    ends.close()
    monkeypatch.setenv(PARENT, "1" if os.getppid() != 1 else "2")
    orphan = Ends(tmp_path, 1)  # its parent died before it began to listen
    assert orphan.gone.wait(60)
    orphan.close()


def test_who_waits_for_an_answer_hears_that_the_trainer_has_gone(tmp_path: Path) -> None:
    ends = Ends(tmp_path, 1)
    caller = ends.call()
    threading.Timer(0.05, ends.close).start()
    with pytest.raises(Hung):
        while True:
            caller.exchange([sense(caller)], np.ones(1, bool))


def test_paths_of_runs_may_be_longer_than_those_of_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    assert address.connect(deep) is None
    with address.listen(deep), address.listen(deep) as newer:
        line = address.connect(deep)
        assert line is not None
        newer.accept()[0].close()
        line.close()
    assert address.connect(deep) is None, "nobody listens at what is left"
