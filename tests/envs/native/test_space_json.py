"""Spaces go through JSON and come back as they were."""

from __future__ import annotations

import json
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_async import envs
from dreamer_async.envs.native import space_json
from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.processes import ProcessEnv, Source
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.suite import Options
from tests.envs.gym_spaces import EXAMPLES, Space, leaf_spaces, usable_spaces

every_space: st.SearchStrategy[Space] = st.one_of(
    usable_spaces,
    st.tuples(leaf_spaces, st.booleans()).map(lambda each: spaces.Sequence(each[0], stack=each[1])),
    st.lists(leaf_spaces, min_size=1, max_size=3).map(spaces.OneOf),
    st.sampled_from(
        [
            spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
            spaces.Graph(spaces.Discrete(3), None),
            spaces.Dict({}),
            spaces.Tuple([]),
            spaces.Dict({1: spaces.Discrete(2), 0: spaces.Discrete(3)}),  # type: ignore[dict-item]
        ]
    ),
)


def through_json(space: Space) -> Space:
    return space_json.decode(json.loads(json.dumps(space_json.encode(space), allow_nan=False)))


def facts(space: Any) -> Any:
    """Whatever a space says of itself."""
    if isinstance(space, spaces.Dict):
        return ["Dict", [(key, facts(part)) for key, part in space.spaces.items()]]
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return [type(space).__name__, [facts(part) for part in space.spaces]]
    names = ("dtype", "start", "low", "high", "bounded_below", "bounded_above", "nvec", "n")
    texts = ("min_length", "max_length", "character_list", "stack", "edge_space")
    found = {name: getattr(space, name) for name in (*names, *texts) if hasattr(space, name)}
    arrays = {
        name: (value.dtype, value.tolist())
        for name, value in found.items()
        if isinstance(value, np.ndarray | np.generic)
    }
    return type(space).__name__, space.shape, found | arrays


@settings(deadline=None)
@given(every_space)
def test_a_space_comes_back_as_it_was(space: Space) -> None:
    back = through_json(space)
    assert back == space and facts(back) == facts(space)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (spaces.Box(0, 1, (2,)), spaces.Box(0, 1, (2,), np.float64)),
        (spaces.Box(0, 1, (2,)), spaces.Box(0, 1 + 2**-23, (2,))),
        (spaces.Box(-math.inf, math.inf, (2,), np.int64), spaces.Box(-(2**63), 9, (2,), np.int64)),
        (spaces.Discrete(3), spaces.Discrete(3, start=1)),
        (spaces.Text(3), spaces.Text(3, min_length=0)),
        (spaces.Tuple([spaces.Discrete(2)]), spaces.OneOf([spaces.Discrete(2)])),
    ],
)
def test_spaces_that_differ_a_little_stay_different(one: Space, other: Space) -> None:
    """The control of the comparison above."""
    assert facts(one) != facts(through_json(other))
    assert space_json.encode(one) != space_json.encode(other)


def test_a_discrete_comes_back_with_a_gymnasium_that_knows_but_one_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Older(spaces.Discrete):
        """As it was before gymnasium 1.2.2."""

        def __init__(self, n: int, seed: int | None = None, start: int = 0) -> None:
            super().__init__(n, seed, start)

    monkeypatch.setattr(spaces, "Discrete", Older)
    assert through_json(Older(3, start=-1)) == Older(3, start=-1)


def test_large_boxes_of_one_bound_are_small() -> None:
    """An image has 100,000 bounds, all alike."""
    assert len(json.dumps(space_json.encode(spaces.Box(0, 255, (210, 160, 3), np.uint8)))) < 200


def test_kinds_and_keys_that_nobody_knows() -> None:
    class Own(gymnasium.Space[Any]):
        """A kind of the user's."""

    space = spaces.Dict({"a": Own(), "b": spaces.Discrete(2)})
    (reader,) = read_space(through_json(space), hidden=frozenset({"a"}))
    assert reader.name == "b"
    with pytest.raises(UnsupportedSpace, match="key None of a Dict is neither a string nor a num"):
        space_json.encode(spaces.Dict({None: spaces.Discrete(2)}))  # type: ignore[dict-item]


# -- a task tells its own spaces ---------------------------------------------------------------


def test_a_worker_tells_the_spaces_of_its_environment() -> None:
    with ProcessEnv(Source("test", "walk", "tests.faulty_envs:Walk"), Options(1, 1, 0)) as env:
        observation, action = envs.native_spaces(env.spec)
    assert action == spaces.Discrete(3, start=-1)
    assert observation["robot.pose"] == spaces.Box(-np.inf, np.inf, (2, 2), np.float64)


def test_envpool_tells_what_its_protocol_shows() -> None:
    _, action = envs.native_spaces(envs.spec("gym", "Pendulum-v1"))
    assert action == spaces.Box(-2, 2, (1,))
    spec = envs.spec("dmc-proprio", "reacher_easy")
    observation, _ = envs.native_spaces(spec)
    assert {key.replace(".", "_") for key in observation.spaces} == set(spec.obs)


@pytest.mark.parametrize("task", envs.tasks("toy"))
def test_a_toy_has_the_spaces_of_its_spec(task: str) -> None:
    spec = envs.spec("toy", task)
    observation, action = envs.native_spaces(spec)
    readers = read_space(observation)
    assert {reader.name: reader.spec for reader in readers} == dict(spec.obs)
    assert isinstance(action, spaces.Discrete) == (spec.action.kind == "discrete")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_come_back(name: str) -> None:
    assert facts(through_json(EXAMPLES[name])) == facts(EXAMPLES[name])
