"""Arguments that the user gives to what builds an environment: taken, or refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dreamer_async import envs
from dreamer_async.config import override, resolve
from dreamer_async.envs.pool import PoolEnv, defaults_of
from dreamer_async.envs.pool_task import OURS, PoolTask
from dreamer_async.envs.processes import ProcessEnv
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suites.gym import ALLOWED
from dreamer_async.envs.view import View
from dreamer_async.scores.protocol import Played, score_tasks
from tests.rollouts import streams


def look(suite: str, task: str, args: dict[str, Any], **view: Any) -> EnvSpec:
    return envs.spec(suite, task, View(args=args, **view))


@pytest.fixture
def pictured(monkeypatch: pytest.MonkeyPatch) -> str:
    name = "tests.faulty_envs:Pictured"
    monkeypatch.setenv(ALLOWED, name)
    return name


def test_a_factory_gets_its_arguments(pictured: str) -> None:
    hide = {"words": "hidden"}
    spec = look("gym", pictured, {"side": 32, "dtype": "bool", "high": 1}, kinds=hide)
    assert spec.obs["tiles"].shape == (32, 32, 1) and list(spec.obs) == ["tiles"]
    assert "of bool" in spec.taken["tiles"].words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "missing a required argument: 'side' (--env-arg NAME=VALUE gives it; it takes side,"),
        ({"side": 32, "hihg": 1}, "has no argument 'hihg'; did you mean high? (it takes side,"),
    ],
)
def test_arguments_that_a_factory_lacks_are_one_line(
    pictured: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        look("gym", pictured, args)
    assert "\n" not in str(refused.value)


def test_a_factory_that_fails_says_how_it_was_called(pictured: str) -> None:
    with pytest.raises(envs.EnvError, match=r"Pictured\(side='wide'\)"):
        look("gym", pictured, {"side": "wide"})


def test_gymnasium_serves_an_id_whose_argument_envpool_lacks() -> None:
    view = View(args={"is_slippery": False, "map_name": "8x8"})
    with envs.make("gym", "FrozenLake-v1", num_envs=2, seed=0, view=view) as env:
        assert isinstance(env, ProcessEnv) and env.spec.obs["state"].classes == 64
        streams(env, 20)
        (remark,) = env.spec.remarks
    assert "envpool's has no argument is_slippery and no map_name" in remark
    with envs.make("gym", "FrozenLake-v1", num_envs=2, seed=0, view=View(args={"size": 8})) as env:
        assert isinstance(env, PoolEnv) and env.spec.obs["state"].classes == 64
        streams(env, 20)
        assert env.spec.remarks == ()


@pytest.mark.parametrize(
    ("suite", "task", "args", "message"),
    [
        ("gym", "FrozenLake-v1", {"is_slipery": True}, "did you mean is_slippery?"),
        ("gym", "FrozenLake-v1", {"size": 8, "is_slippery": True}, "no argument 'size'"),
        ("gym", "FrozenLake-v1", {"id": "Taxi-v3"}, "id is no argument for --env-arg; --task"),
        (
            "atari",
            "pong",
            {"frame_skp": 2},
            "unknown argument 'frame_skp'; did you mean frame_skip?",
        ),
        ("atari", "pong", {"frame_skip": "two"}, "must be a whole number, such as 4, not 'two'"),
        ("atari", "pong", {"frame_skip": True}, "must be a whole number, such as 4, not True"),
        ("atari", "pong", {"frame_skip": 2.0}, "must be a whole number"),
        ("atari", "pong", {"frame_skip": 0}, "argument frame_skip must be at least 1, not 0"),
        ("atari", "pong", {"frame_skip": -4}, "argument frame_skip must be at least 1, not -4"),
        ("atari", "pong", {"gray_scale": 1}, "must be true or false, such as True, not 1"),
        ("atari", "pong", {"repeat_action_probability": "x"}, "must be a number, such as 0.25"),
        ("atari", "pong", {"task": 3}, "task is no argument for --env-arg; --task names it"),
        ("minigrid", "empty-5x5", {"agent_start_pos": 3}, "must be a list, such as (1, 1)"),
        ("toy", "catch", {"speed": 2}, "toy catch takes no arguments"),
    ],
)
def test_what_cannot_be_given_is_one_line(
    suite: str, task: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        look(suite, task, args)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_a_run_sets_itself_is_refused_with_its_flag(name: str) -> None:
    task = PoolTask("gym", "Pong-v5", "Pong-v5", view=View(args={name: 3}))
    with pytest.raises(ValueError, match=f"{name} is no argument for --env-arg; {OURS[name]}"):
        task.asked({name: 1})


def test_a_value_that_ends_envpool_ends_no_process_of_ours() -> None:
    """envpool looks at no value: it would take this one, and die or never come back."""
    with pytest.raises(ValueError, match="cannot be used with img_height=-16: "):
        look("atari", "pong", {"img_height": -16})


def test_options_of_envpool_change_what_is_seen_and_counted() -> None:
    view = View(args={"frame_skip": 2, "img_height": 84, "img_width": 84, "gray_scale": False})
    with envs.make("atari", "pong", num_envs=2, seed=0, view=view) as env:
        assert env.spec == envs.spec("atari", "pong", view)
        assert env.spec.frames_per_step == 2 and env.spec.obs["image"].shape == (96, 96, 3)
        streams(env, 5)
    usual = envs.spec("atari", "pong")
    assert (usual.frames_per_step, usual.obs["image"].shape) == (4, (96, 96, 1))
    with pytest.raises(ValueError, match="exact draws gray_scale as the protocol has it"):
        envs.make("atari", "pong", num_envs=1, seed=0, view=view, resize="exact")


def test_options_that_envpool_does_not_list_are_known() -> None:
    assert defaults_of("HalfCheetah-v4")["from_pixels"] is False
    assert "from_pixels" not in defaults_of("Pong-v5")


def test_a_list_is_a_tuple_for_envpool() -> None:
    view = View(args={"agent_start_pos": [2, 2]})
    with envs.make("minigrid", "empty-5x5", num_envs=2, seed=0, view=view) as env:
        streams(env, 5)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"colour": "hidden"}, "unknown observation key 'colour'; did you mean color?"),
        ({"color": "vector"}, "only --as color=hidden"),
    ],
)
def test_a_suite_that_reads_its_own_way_only_hides(kinds: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.spec("minigrid", "empty-5x5", View(kinds=kinds))
    left = envs.spec("minigrid", "empty-5x5", View(kinds={"color": "hidden"})).obs
    assert envs.spec("minigrid", "empty-5x5").obs.keys() - left.keys() == {"color"}


def test_kinds_reach_envpool() -> None:
    view = View(kinds={"observation": "vector"})
    assert envs.spec("gym", "FrozenLake-v1", view).obs["vector"].shape == (1,)
    with envs.make("gym", "FrozenLake-v1", num_envs=2, seed=0, view=view) as env:
        streams(env, 10)


def test_a_protocol_with_arguments_of_ones_own_is_told_from_the_published_one() -> None:
    import numpy as np

    usual = resolve("atari", "pong", size="size200m")
    changed = override(usual, ['env.args={"frame_skip": 2}'])
    for config, differs in ((usual, []), (changed, ["env.args"])):
        nothing = np.zeros(0)
        (score,) = score_tasks([Played("r", config, 4, 0.0, nothing, nothing)])
        assert [text.partition("=")[0] for text in score.differences] == differs
