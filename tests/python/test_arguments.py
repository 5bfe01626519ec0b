"""What a program gives to the public functions: a wrong kind is one clear error, before all."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces

import dreamer_async
from dreamer_async import ConfigError, Run, Session
from dreamer_async.config.arguments import in_python
from dreamer_async.store.run_dir import RunDir

BOX = spaces.Box(-1, 1, (2,))
NEEDED: dict[Any, dict[str, Any]] = {
    dreamer_async.load: {},
    dreamer_async.evaluate: {},
    dreamer_async.train: {},
    dreamer_async.learn: {"source": "last", "updates": 1},
    Session: {"observation_space": BOX, "action_space": BOX},
    Run.find: {},
    Run(RunDir(Path("none"))).wait: {},
    Run(RunDir(Path("none"))).stop: {},
    Run(RunDir(Path("none"))).checkpoint: {},
}
"""Public functions, each with what it cannot do without."""
ANYTHING = {"spectator"}
"""Arguments of no one kind."""


def _each() -> Iterator[Any]:
    for function in NEEDED:
        for name in inspect.signature(function).parameters:
            if name not in ANYTHING:
                yield pytest.param(function, name, id=f"{function.__name__}-{name}")


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("train", "session"):
        home = sys.modules[f"dreamer_async.python.{module}"]
        monkeypatch.setattr(home, "start_trainer", lambda *_, **__: pytest.fail("it starts"))


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("function", "name"), list(_each()))
def test_each_argument_is_checked(function: Any, name: str, tmp_path: Path) -> None:
    class Odd:
        """Of no use to anyone."""

    for wrong in (Odd(), b"x"):
        with pytest.raises(ConfigError) as raised:
            function(**NEEDED[function] | {name: wrong})
        said = str(raised.value)
        assert said.startswith((f"{name}: expected", f"{name} is")), said
        assert "\n" not in said
    assert not list(tmp_path.iterdir()), "something was created"


@pytest.mark.parametrize("wrong", [None, "", "a\0b", 7, True, b"last", [], {}])
@pytest.mark.parametrize("function", [dreamer_async.load, dreamer_async.evaluate, Run.find])
def test_a_run_is_a_name_or_a_path(function: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected a name or a path, got "):
        function(wrong)


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (dreamer_async.evaluate, {"longest": 0}, "longest is 0, but must be at least 1"),
        (dreamer_async.evaluate, {"episodes": 2.5}, "episodes: expected a whole number, got 2.5"),
        (dreamer_async.train, {"log": "wandb"}, "log: expected a list of texts, got 'wandb'"),
        (dreamer_async.train, {"env": BOX}, "env: expected an id, .*, got Box"),
        (dreamer_async.train, {"env": "toy/catch"}, r"train\('toy', task='catch'\)"),
        (dreamer_async.train, {"suite": "toy", "task": "catch", "name": "a/b"}, "^name 'a/b': use"),
        (dreamer_async.train, {"suite": "toy", "task": "catch", "log": ["x"]}, "^log 'x': expect"),
        (dreamer_async.train, {"suite": "nothing", "task": "x"}, "; task x needs a suite"),
        (dreamer_async.train, {"suite": "toy", "task": "catch", "replay_dir": "a"}, "^replay_dir "),
        (dreamer_async.learn, {"updates": 0}, "^updates 0 leaves nothing to do"),
        (dreamer_async.learn, {"init_parts": "all"}, "^init_parts all needs init RUN"),
        (Session, {"num_bodies": 0}, "num_bodies is 0, but must be at least 1"),
        (Session, {"observation_space": None}, "expected a gymnasium Space, got None"),
    ],
)
def test_values_are_checked_too(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(**NEEDED[function] | options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--name 'a b' is long", "name 'a b' is long"),
        ("give fewer --envs", "give fewer num_envs"),
        (
            "free some (-s replay.capacity_gb=...)",
            'free some (settings={"replay.capacity_gb": ...})',
        ),
        ("say --as arm/tool=hidden", 'say settings={"env.kinds": {"arm/tool": "hidden"}}'),
        ("see `dreamer-async train --name X`", "see `dreamer-async train --name X`"),
        ("--task x (in Python: task='x')", "--task x (in Python: task='x')"),
        ("--watch is no argument here", "--watch is no argument here"),
        ("name '--name' is odd", "name '--name' is odd"),
    ],
)
def test_messages_name_arguments_and_not_flags(text: str, said: str) -> None:
    assert in_python(text, inspect.signature(dreamer_async.train).parameters) == said
