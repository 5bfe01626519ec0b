"""Spelling of suites and tasks, and that naming one imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dreamer_async import envs
from dreamer_async.envs import needs
from dreamer_async.envs.suites import atari


@pytest.mark.parametrize(
    ("suite", "given", "canonical"),
    [
        ("atari", "pong", "pong"),
        ("atari", "MsPacman", "ms_pacman"),
        ("atari", "ms-pacman", "ms_pacman"),
        ("atari", "Pong-v5", "pong"),
        ("atari", "james_bond", "jamesbond"),
        ("atari", "Up N Down", "up_n_down"),
        ("atari", "TicTacToe3d-v5", "tic_tac_toe3d"),
        ("atari100k", "KungFuMaster", "kung_fu_master"),
        ("toy", "CatchPixels", "catch_pixels"),
        ("classic", "CartPole-v1", "cartpole"),
        ("classic", "cart_pole", "cartpole"),
        ("classic", "FrozenLake8x8-v1", "frozen_lake8x8"),
        ("gym", "CartPole-v1", "CartPole-v1"),
        ("gym", "LunarLander-v3", "LunarLander-v3"),
    ],
)
def test_spelling_is_tolerant(suite: str, given: str, canonical: str) -> None:
    assert envs.resolve_task(suite, given) == canonical


@pytest.mark.parametrize(
    ("suite", "given", "expected"),
    [
        ("atari", "pongg", "pong"),
        ("atari", "breakot", "breakout"),
        ("atari", "pacman_ms", "pacman"),
        ("atari100k", "seaqest", "seaquest"),
        ("atari100k", "tennis", "26 in all"),
        ("toy", "cach", "catch"),
        ("toy", "", "catch, catch_pixels, reach, cue"),
        ("classic", "CartPole-v7", "cartpole"),
        ("gym", "cartpole-v1", "CartPole-v1"),
        ("gym", "CartPole", "CartPole-v"),
        ("gym", "\x1b[31mred\n", "\\x1b"),
        ("atri", "pong", "atari"),
    ],
)
def test_unknown_names_get_one_line_with_what_is_near(
    suite: str, given: str, expected: str
) -> None:
    with pytest.raises(envs.UnknownTask) as error:
        envs.resolve_task(suite, given)
    message = str(error.value)
    assert expected in message and message.isprintable(), message


def test_benchmarks_are_complete() -> None:
    assert len(atari.BENCHMARK) == 57
    assert len(envs.tasks("atari100k")) == 26
    assert set(envs.tasks("atari100k")) <= set(atari.BENCHMARK)
    assert envs.tasks("atari")[:57] == atari.BENCHMARK


def test_atari_names_are_those_of_envpool() -> None:
    ids = {i for i in needs.import_envpool().list_all_envs() if i.endswith("-v5")}
    named = {atari.env_id(game) for game in envs.tasks("atari")}
    assert named <= ids and len(named) == 104


def test_every_default_is_a_task() -> None:
    for suite in envs.suites():
        default = envs.default_task(suite)
        assert envs.resolve_task(suite, default) == default
        assert all(envs.resolve_task(suite, task) == task for task in envs.tasks(suite))


def test_naming_tasks_imports_neither_envpool_nor_gymnasium() -> None:
    code = (
        "import sys, envs\n"
        "for suite in set(envs.suites()) - {'gym'}:\n"
        "    envs.resolve_task(suite, envs.default_task(suite))\n"
        "    try: envs.resolve_task(suite, 'nothing like it')\n"
        "    except envs.UnknownTask: pass\n"
        "envs.make('toy', 'catch', num_envs=2, seed=0).close()\n"
        "heavy = 'envpool gymnasium torch crafter bsuite memory_maze mujoco PIL pandas'.split()\n"
        "print([module for module in heavy if module in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"batch_size": 5}, "batch_size 5"),
        ({"batch_size": -1}, "batch_size -1"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_bad_options_are_refused_before_anything_opens(wrong: dict[str, int], message: str) -> None:
    options: dict[str, Any] = {"num_envs": 4, "seed": 0, **wrong}
    with pytest.raises(ValueError, match=message):
        envs.make("atari", "pong", **options)
