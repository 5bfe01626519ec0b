"""What gymnasium spaces become, and which are refused."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async.envs.spaces import UnsupportedSpace, read_space, write_actions, write_space
from dreamer_async.envs.spec import RESERVED, ActionSpec, ObsSpec, check_observations

BYTES = np.uint8


@pytest.mark.parametrize(
    ("space", "name", "spec"),
    [
        (spaces.Box(0, 255, (64, 64, 3), BYTES), "image", ObsSpec((64, 64, 3), "uint8")),
        (spaces.Box(0, 255, (3, 64, 96), BYTES), "image", ObsSpec((64, 96, 3), "uint8")),
        (spaces.Box(0, 255, (1, 96, 96), BYTES), "image", ObsSpec((96, 96, 1), "uint8")),
        (spaces.Box(0, 255, (32, 16), BYTES), "image", ObsSpec((32, 16, 1), "uint8")),
        (spaces.Box(0, 255, (7, 7, 3), BYTES), "vector", ObsSpec((147,), "float32")),
        (spaces.Box(0, 255, (128,), BYTES), "vector", ObsSpec((128,), "float32")),
        (spaces.Box(0, 1, (10, 5), np.float32), "vector", ObsSpec((50,), "float32")),
        (spaces.Box(0, 1, (), np.float64), "vector", ObsSpec((1,), "float32")),
        (spaces.Discrete(4), "state", ObsSpec((), "int32", 4)),
        (spaces.Discrete(2**20), "state", ObsSpec((), "int32", 2**20)),
        (spaces.MultiDiscrete([2, 5, 3]), "state", ObsSpec((3,), "int32", 5)),
        (spaces.MultiDiscrete(np.array([[2, 5], [3, 4]])), "state", ObsSpec((4,), "int32", 5)),
    ],
)
def test_plain_spaces(space: gymnasium.Space, name: str, spec: ObsSpec) -> None:
    (reader,) = read_space(space)
    assert (reader.name, reader.spec) == (name, spec)
    space.seed(0)
    batch = np.stack([np.asarray(space.sample()) for _ in range(3)])
    value = reader.read(batch)
    assert (value.shape, value.dtype) == ((3, *spec.shape), spec.dtype)
    if reader.picture is not None and reader.picture.order == "chw":
        assert (value == np.moveaxis(batch, 1, -1)).all()
    else:
        assert (value.reshape(-1) == batch.reshape(-1).astype(spec.dtype)).all()


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_no_key_has_a_name_of_ours(key: str) -> None:
    """What the replay and the losses call their own would be refused by the agent."""
    (reader,) = read_space(spaces.Dict({key: spaces.Discrete(2)}))
    assert reader.name == f"obs_{key}"
    with pytest.raises(ValueError, match="is reserved"):
        check_observations({key: reader.spec})
    with pytest.raises(UnsupportedSpace, match="ambiguous"):
        read_space(spaces.Dict({key: spaces.Discrete(2), f"obs_{key}": spaces.Discrete(2)}))


def test_dictionaries_nest_and_keys_stay_clear_of_ours() -> None:
    space = spaces.Dict(
        {
            "arm": spaces.Dict({"joint.1": spaces.Box(-1, 1, (2,)), "grip": spaces.Discrete(2)}),
            "reward": spaces.Box(-1, 1, (1,)),
        }
    )
    readers = read_space(space)
    assert {reader.name for reader in readers} == {"arm/grip", "arm/joint_1", "obs_reward"}
    batch = {
        "arm": {"joint.1": np.ones((3, 2)), "grip": np.array([0, 1, 0])},
        "reward": np.zeros((3, 1)),
    }
    assert {reader.name: reader.read(batch).shape for reader in readers} == {
        "arm/grip": (3,),
        "arm/joint_1": (3, 2),
        "obs_reward": (3, 1),
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Tuple([spaces.Discrete(2)]), "Tuple.* is not supported yet"),
        (spaces.Dict({"word": spaces.Text(5)}), "Text.* of key word is not supported yet"),
        (spaces.MultiBinary(3), "MultiBinary"),
        (spaces.Dict({}), "has no or ambiguous keys"),
        (spaces.Dict({"a.b": spaces.Discrete(2), "a_b": spaces.Discrete(2)}), "ambiguous"),
        (spaces.Box(0, 1, (0,)), "is empty"),
        (spaces.Discrete(2**40), "has 1,099,511,627,776 classes, but 1,048,576 are the most"),
        (spaces.MultiDiscrete([2, 2], start=[0, 2**33]), "8,589,934,594 classes"),
        (spaces.Discrete(100, start=100, dtype=np.int8), "has a class 199 that its int8 lacks"),
    ],
)
def test_observation_spaces_that_are_refused(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        read_space(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete([2, 3]), r"MultiDiscrete\(\[2 3\]\) is not supported here"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "Dict.* is not supported here"),
        (spaces.Box(-np.inf, np.inf, (2,)), "no finite bounds"),
        (spaces.Box(-1.8e308, 1.8e308, (2,), np.float64), "no finite bounds"),
        (spaces.Box(1, 1, (2,)), "no finite bounds"),
        (spaces.Box(0, 1, (0,)), "is empty, so that there is nothing to decide"),
        (spaces.Discrete(2**20 + 1), "1,048,577 classes, but 1,048,576 are the most"),
        (spaces.Box(0, 5, (2,), np.int32), "whole numbers"),
    ],
)
def test_action_spaces_that_are_refused(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        write_space(space)


def test_discrete_actions_start_where_theirs_do() -> None:
    writer = write_space(spaces.Discrete(3, start=-1))
    assert writer.spec == ActionSpec("discrete", 3)
    assert writer.write(np.array([0, 1, 2], np.int32)).tolist() == [-1, 0, 1]


def test_continuous_actions_fill_their_bounds_and_no_more() -> None:
    space = spaces.Box(np.array([-1.0, 0.1]), np.array([1.0, 0.7]), dtype=np.float64)
    writer = write_space(space)
    action = np.array([[-1, -1], [1, 1], [0, 0], [-5, 5], [0.3, 0.1]], np.float32)
    got = writer.write(action)
    assert got.dtype == np.float64 and all(space.contains(row) for row in got)
    assert got[:4] == pytest.approx(np.array([[-1, 0.1], [1, 0.7], [0, 0.4], [-1, 0.7]]))
    assert got[4, 0] == pytest.approx(0.3)
    assert writer.write(action) is not action


def test_several_actions_come_as_one_vector_and_leave_as_the_environment_has_them() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(np.array([0.0, -10.0]), np.array([1.0, 10.0]), dtype=np.float64),
            "hand": spaces.Dict({"use": spaces.Discrete(3, start=5)}),
        }
    )
    writer = write_actions(space)
    parts = {"camera": ActionSpec("continuous", 2), "hand/use": ActionSpec("discrete", 3)}
    assert writer.spec == ActionSpec.several(parts)
    assert (writer.spec.shape, writer.spec.dtype, writer.spec.width) == ((3,), "float32", 5)
    action = writer.one(np.array([0, 0.5, 2], np.float32))
    assert space.contains(action)
    assert action["camera"].tolist() == [0.5, 5.0] and action["hand"]["use"] == 7


def test_multi_discrete_actions_are_several_of_their_own_sizes() -> None:
    space = spaces.MultiDiscrete(np.array([[2, 5], [3, 4]]), start=np.array([[0, 1], [0, -1]]))
    writer = write_actions(space)
    assert [part.size for _, part in writer.spec.parts] == [2, 5, 3, 4]
    action = writer.one(np.array([1, 4, 0, 3], np.float32))
    assert space.contains(action) and action.tolist() == [[1, 5], [0, 2]]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({}), "none or ambiguous"),
        (spaces.Dict({"a": spaces.MultiBinary(2)}), "MultiBinary"),
        (spaces.MultiDiscrete([2, 2**40]), "classes, but 1,048,576 are the most"),
        (spaces.Dict({"a": spaces.Box(-np.inf, np.inf, (2,))}), "no finite bounds"),
    ],
)
def test_several_actions_that_are_refused(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        write_actions(space)
