"""Observations and actions between an environment's own units and the agent's, without it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, reject, settings

from dreamer_async import envs
from dreamer_async.envs.native import space_json
from dreamer_async.envs.native.translator import Translator
from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.view import PLAIN, View
from tests.envs.gym_spaces import Space, described, usable_spaces

OWN = [
    ("minigrid", "empty-5x5"),
    ("minigrid", "babyai-goto"),
    ("toy", "seek_pixels"),
    ("toy", "reach"),
]
"""Tasks whose observations are read in a way of their own."""
NATIVE = [
    ("classic", "cartpole"),
    ("classic", "frozenlake"),
    ("gym", "Pendulum-v1"),
    ("mujoco", "half_cheetah"),
    ("atari", "pong"),
]


def check(translator: Translator, spec: EnvSpec) -> None:
    """What fits the spaces fits the spec, and back."""
    translator.observation_space.seed(0)
    try:
        obs = translator.observation_space.sample()
    except (ValueError, OverflowError):  # from 0.0 to -0.0, or all of float64
        reject()
    rows = translator.read(obs)
    assert {name: (row.shape[1:], row.dtype) for name, row in rows.items()} == {
        name: (obs.shape, np.dtype(obs.dtype)) for name, obs in spec.obs.items()
    }
    actions = spec.action.sample(3, np.random.default_rng(0))
    for action in actions:
        written = translator.write(action)
        assert translator.action_space.contains(written), written


@pytest.mark.parametrize(("suite", "task"), [*OWN, *NATIVE])
def test_a_task_is_read_and_written_in_its_units(suite: str, task: str) -> None:
    spec = envs.spec(suite, task)
    translator = envs.translator(spec, PLAIN)
    check(translator, spec)
    native = envs.native_spaces(spec)
    assert (translator.observation_space == native[0]) is (
        (suite, task) in NATIVE or not spec.native
    )
    assert translator.action_space == native[1]


def test_what_a_suite_reads_in_its_own_way_has_the_keys_of_the_spec() -> None:
    spec = envs.spec("minigrid", "empty-5x5")
    translator = envs.translator(spec, PLAIN)
    assert isinstance(translator.observation_space, gymnasium.spaces.Dict)
    assert list(translator.observation_space) == list(spec.obs) != ["image"]
    with pytest.raises(ValueError, match="no 'object', which its space names"):
        translator.read({"image": np.zeros((7, 7, 3), np.uint8)})


@settings(max_examples=50)
@given(usable_spaces, usable_spaces)
def test_any_space_is_read_and_written_without_its_environment(
    observation: Space, action: Space
) -> None:
    try:
        spec = described(observation, action)
    except UnsupportedSpace:
        return
    translator = Translator.of(spec, PLAIN)
    assert (translator.observation_space, translator.action_space) == (observation, action)
    check(translator, spec)


def test_what_the_user_says_of_keys_holds() -> None:
    tiles: Any = gymnasium.spaces.Box(0, 10, (16, 16), np.uint8)
    view = View(kinds={"observation": "category"})
    obs = {reader.name: reader.spec for reader in read_space(tiles, view)}
    native = space_json.native(tiles, gymnasium.spaces.Discrete(2))
    spec = EnvSpec("gym", "case", obs, envs.ActionSpec("discrete", 2), native=native)
    told, plain = Translator.of(spec, view), Translator.of(spec, PLAIN)
    rows = told.read(np.full((16, 16), 3, np.uint8))
    assert [row.tolist() for row in rows.values()] == [[[3] * 256]]
    assert plain.observation_space != tiles, "without it the spec would be another one"
