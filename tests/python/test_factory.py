"""What an environment is called in another process, and what has no name there."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamer_async.config import ConfigError
from dreamer_async.envs.children import WORKER
from dreamer_async.envs.suites.gym import ALLOWED, SEARCH
from dreamer_async.envs.worker import NoEnvironment
from dreamer_async.python.factory import allowed, named, refuse_in_worker
from dreamer_async.python.settings import as_words
from tests.faulty_envs import Walk


def test_ids_classes_and_functions_have_names() -> None:
    assert named("CartPole-v1") == ("CartPole-v1", {})
    assert named(Walk) == ("tests.faulty_envs:Walk", {})
    partial = functools.partial(functools.partial(Walk, pause=1.0), pause=2.0)
    assert named(partial) == ("tests.faulty_envs:Walk", {"pause": 2.0})


def inner() -> Any:
    def build() -> Walk:
        return Walk()

    return build


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: Walk(), "could import: define it at the top of a module"),
        (inner(), "could import"),
        (Walk().reset, "could import"),
        (functools.partial(Walk, 1.0), "by their names"),
        (Walk(), "env: expected an id, .*, got <.*Walk object"),
    ],
)
def test_what_has_no_name_is_refused_with_what_would_work(env: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(env)


SCRIPT = """
from tests.faulty_envs import Walk
def build(): return Walk()
if __name__ == "__main__":
    from dreamer_async.python.factory import named
    print(named(build).task)
"""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["my_script.py"], "my_script:build"),
        (["-m", "my_script"], "my_script:build"),
        (["-c", SCRIPT], "a notebook or a prompt"),
        (["my-script.py"], "my-script.py, whose name cannot be imported"),
    ],
)
def test_functions_of_a_script_are_named_by_its_file(
    words: list[str], answer: str, tmp_path: Path
) -> None:
    for name in ("my_script.py", "my-script.py"):
        (tmp_path / name).write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert answer in (done.stdout if done.returncode == 0 else done.stderr)


def test_code_is_allowed_for_a_while_and_found_where_this_process_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ALLOWED, "before")
    monkeypatch.delenv(SEARCH, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with allowed():
        os.environ[ALLOWED] = "inside"
        assert str(tmp_path) in os.environ[SEARCH].split(os.pathsep)
    assert os.environ[ALLOWED] == "before" and SEARCH not in os.environ


def test_a_script_that_is_imported_for_its_environment_starts_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_in_worker("train")
    monkeypatch.setenv(WORKER, "1")
    with pytest.raises(NoEnvironment, match=r"if __name__ == '__main__':"):
        refuse_in_worker("train")


def test_values_become_the_words_of_settings() -> None:
    given = {"a": 1e-4, "b": True, "c": None, "d": (2, 3), "e": {"x": [1, None]}, "f": Path("y")}
    assert as_words(given) == ["a=0.0001", "b=true", "d=2,3", 'e={"x": [1, null]}', "f=y"]
    with pytest.raises(ConfigError, match="e must be what JSON can hold"):
        as_words({"e": {"x": object()}})
