"""What gymnasium spaces become, and which are refused."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import RESERVED, ObsSpec, check_observations

BYTES = np.uint8
BOOL: Any = np.bool_  # which gymnasium takes and its types do not


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
        (spaces.MultiBinary(3), "state", ObsSpec((3,), "int32", 2)),
        (spaces.MultiBinary([2, 3]), "state", ObsSpec((6,), "int32", 2)),
        (spaces.Box(0, 1, (2, 2), np.float16), "vector", ObsSpec((4,), "float32")),
        (spaces.Box(-9, 9, (2, 2, 2, 2), np.int64), "vector", ObsSpec((16,), "float32")),
        (spaces.Box(0, 1, (3,), BOOL), "vector", ObsSpec((3,), "float32")),
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
        (spaces.Dict({}), "has no or ambiguous keys"),
        (spaces.Dict({"a.b": spaces.Discrete(2), "a_b": spaces.Discrete(2)}), "ambiguous"),
        (spaces.Box(0, 1, (0,)), "is empty"),
        (spaces.Discrete(2**40), "has 1,099,511,627,776 classes, but 1,048,576 are the most"),
        (spaces.MultiDiscrete([2, 2**33]), "8,589,934,592 classes"),
        (spaces.Discrete(100, start=100, dtype=np.int8), "has a class 199 that its int8 lacks"),
    ],
)
def test_observation_spaces_that_are_refused(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        read_space(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Sequence(spaces.Discrete(2)), "has no fixed length"),
        (spaces.Graph(spaces.Discrete(2), None), "has no fixed size"),
        (spaces.OneOf([spaces.Discrete(2)]), "is another one in every step"),
        (spaces.Text(1000), "1,000 characters out of 62 is too large"),
        (spaces.Text(0, min_length=0), "is empty"),
        (gymnasium.Space(), "is of an unknown kind"),
    ],
)
def test_what_cannot_be_read_can_be_left_out(space: gymnasium.Space, words: str) -> None:
    """The message says how, and hiding it does help."""
    nested = spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), space])})
    with pytest.raises(UnsupportedSpace, match=words + r".*, or leave it out: --as a/1=hidden"):
        read_space(nested)
    with pytest.raises(UnsupportedSpace, match=words) as whole:
        read_space(space)
    assert "hidden" not in str(whole.value), "of nothing else one can learn"
    (reader,) = read_space(nested, hidden=frozenset({"a/1"}))
    assert reader.name == "a/0"
    with pytest.raises(UnsupportedSpace, match=r"has no \['a'\] to hide"):
        read_space(nested, hidden=frozenset({"a"}))


def test_texts_become_a_class_per_character_in_the_order_of_the_alphabet() -> None:
    """Whatever order a set of characters has: it differs between processes in older gymnasiums."""
    (reader,) = read_space(spaces.Text(4, charset="cab"))
    assert (reader.name, reader.spec) == ("text", ObsSpec((4,), "int32", 4))
    assert reader.read(["abc", "c"]).tolist() == [[1, 2, 3, 0], [3, 0, 0, 0]]


def test_classes_are_limited_all_together() -> None:
    read_space(spaces.MultiDiscrete([2**10] * 2**10))
    with pytest.raises(UnsupportedSpace, match="1,025 numbers of 1,024 classes each are 1,049,600"):
        read_space(spaces.MultiDiscrete([2**10] * (2**10 + 1)))
