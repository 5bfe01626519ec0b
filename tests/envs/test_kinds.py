"""What the user says that observation keys are: categories, images, vectors, or left out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.spaces import read_space, vector_bounds
from dreamer_async.envs.spec import ObsSpec
from dreamer_async.envs.values import BrokenRule, observation
from dreamer_async.envs.view import View

GRID = spaces.Box(0, 10, (16, 16, 3), np.uint8)


def read(space: Any, **kinds: str) -> dict[str, Any]:
    told = {key.replace("__", "/"): kind for key, kind in kinds.items()}
    return {reader.name: reader for reader in read_space(space, View(kinds=told))}


@pytest.mark.parametrize(
    ("space", "kind", "spec"),
    [
        (GRID, "category", ObsSpec((768,), "int32", 11)),
        (GRID, "category:5", ObsSpec((768,), "int32", 5)),
        (GRID, "vector", ObsSpec((768,), "float32")),
        (GRID, "image", ObsSpec((16, 16, 3), "uint8")),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), "category:11", ObsSpec((147,), "int32", 11)),
        (spaces.Box(-2, 2, (), np.int64), "category", ObsSpec((), "int32", 5)),
        (spaces.Box(0, 3, (2,), np.float32), "category", ObsSpec((2,), "int32", 4)),
        (spaces.Box(0, np.inf, (2,), np.float32), "category:9", ObsSpec((2,), "int32", 9)),
        (spaces.Box(0, 255, (5, 4, 2), np.uint8), "image", ObsSpec((16, 16, 2), "uint8")),
        (spaces.Box(0, 1, (5, 4), np.float32), "image", ObsSpec((16, 16, 1), "uint8")),
        (spaces.Discrete(5), "vector", ObsSpec((1,), "float32")),
        (spaces.MultiDiscrete([2, 3]), "vector", ObsSpec((2,), "float32")),
        (spaces.Discrete(5), "category", ObsSpec((), "int32", 5)),
    ],
)
def test_a_key_is_what_the_user_says(space: Any, kind: str, spec: ObsSpec) -> None:
    (reader,) = read(spaces.Dict({"a": spaces.Dict({"b": space})}), a__b=kind).values()
    assert (reader.name, reader.spec) == ("a/b", spec)
    assert reader.taken().key == "a/b" and reader.taken().chosen
    low = getattr(space, "low", np.zeros(space.shape))
    value = observation(reader, {"a": {"b": low.astype(space.dtype)}})
    assert (value.shape, value.dtype) == (spec.shape, spec.dtype)


def test_categories_count_from_the_lower_bound_and_no_class_is_made_up() -> None:
    (reader,) = read(spaces.Box(-2, 2, (3,), np.int8), observation="category").values()
    assert observation(reader, np.array([-2, 0, 2], np.int8)).tolist() == [0, 2, 4]
    with pytest.raises(BrokenRule, match=r"observation\[1\] is 3, which is no class of -2.* to 2"):
        observation(reader, np.array([0, 3, 0]))


def test_a_number_of_categories_bounds_the_values() -> None:
    (reader,) = read(spaces.Box(0, 255, (2,), np.uint8), vector="category:11").values()
    assert observation(reader, np.array([0, 10], np.uint8)).tolist() == [0, 10]
    with pytest.raises(BrokenRule, match="is 11, which is no class"):
        observation(reader, np.array([0, 11], np.uint8))


@pytest.mark.parametrize("kind", [None, "hidden"])
def test_any_space_can_be_left_out(kind: str | None) -> None:
    """Also those that nobody can read, and whole dictionaries."""
    node = spaces.Discrete(2)
    space = spaces.Dict(
        v=spaces.Discrete(3),
        s=spaces.Sequence(node),
        g=spaces.Graph(node, None),
        d=spaces.Dict(a=spaces.Sequence(node), b=node),
    )
    if kind is None:
        with pytest.raises(UnsupportedSpace, match=r"--as \S+=hidden"):
            read(space)
    else:
        assert list(read(space, s=kind, g=kind, d=kind)) == ["v"]


@pytest.mark.parametrize(
    ("space", "kinds", "message"),
    [
        (GRID, {"tiles": "vector"}, "unknown observation key 'tiles'; there is only observation"),
        (
            spaces.Dict(tiles=GRID, v=spaces.Discrete(2)),
            {"tile": "vector"},
            "unknown observation key 'tile'; did you mean tiles?",
        ),
        (
            spaces.Dict(a=spaces.Dict(tiles=GRID)),
            {"tiles": "vector"},
            "unknown observation key 'tiles'; did you mean a/tiles?",
        ),
        (
            spaces.Dict(a=spaces.Dict(tiles=GRID)),
            {"a": "vector"},
            "a holds other keys: say it of each, such as a/tiles",
        ),
        (spaces.Dict(a=GRID), {"a": "hidden"}, "has no or ambiguous keys"),
        (spaces.Box(0, 255, (9,), np.uint8), {"vector": "category"}, "=category:11 for 0 to 10"),
        (spaces.Box(0, np.inf, (9,)), {"vector": "category"}, "give no number of categories"),
        (spaces.Box(0, 0.5, (9,)), {"vector": "category"}, "give no number of categories"),
        (spaces.Box(0, 3, (9,)), {"vector": "category:5"}, "is more than its 4 numbers"),
        (
            spaces.Box(0, 255, (64, 64), np.uint8),
            {"image": "category:300"},
            "is more than its 256 numbers",
        ),
        (
            spaces.Box(0, 255, (96, 96, 3), np.uint8),
            {"image": "category:99"},
            "27,648 categories of 99, each one input",
        ),
        (spaces.Discrete(3), {"state": "image"}, "--as observation=image is not possible"),
        (spaces.Discrete(3), {"state": "category:2"}, "category:2 is not possible"),
        (spaces.Box(0, 255, (64, 64), np.uint8), {"image": "image:chw"}, "is no image"),
    ],
)
def test_what_cannot_be_is_one_clear_line(space: Any, kinds: dict[str, str], message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=re.escape(message)) as refused:
        read_space(space, View(kinds=kinds))
    assert "\n" not in str(refused.value).replace(str(space), "")


def test_a_key_may_be_named_as_it_is_printed() -> None:
    space = spaces.Dict({"joint.1": spaces.Discrete(9), "reward": spaces.Discrete(9)})
    for key in ("joint.1", "joint_1"):
        assert read(space, **{key: "hidden"}).keys() == {"obs_reward"}
    for key in ("reward", "obs_reward"):
        assert read(space, **{key: "hidden"}).keys() == {"joint_1"}


def test_bounds_are_those_of_boxes_only() -> None:
    space = spaces.Dict(a=spaces.Discrete(9), b=spaces.Box(0, 9, (16, 16), np.uint8))
    readers = read_space(space, View(kinds={"a": "vector", "b": "vector"}))
    assert vector_bounds(space, readers) == {"b": (0, 9)}


@pytest.mark.parametrize(
    ("space", "kinds", "others"),
    [
        (spaces.Box(-1, 1, (3,), np.float32), {}, "category"),
        (spaces.Box(-np.inf, np.inf, (3,), np.float32), {}, ""),
        (spaces.Box(0, 255, (4,), np.uint8), {}, "category:COUNT"),
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), {}, "vector|category:COUNT"),
        (spaces.Box(0.0, 1.0, (64, 64, 3), np.float32), {"a": "vector"}, "image|category"),
        (GRID, {"a": "category"}, "image|vector"),
        (spaces.Discrete(3), {}, "vector"),
        (spaces.MultiBinary(4), {"a": "vector"}, "category"),
        (spaces.Text(5), {}, ""),
    ],
)
def test_what_else_a_key_may_be_is_what_else_is_taken(
    space: Any, kinds: dict[str, str], others: str
) -> None:
    inside = spaces.Dict({"a": space})
    taken = read(inside, **kinds)["a"].taken()
    assert taken.others == "|".join(filter(None, [others, "hidden"]))
    told = [*taken.others.replace("COUNT", "3").split("|")[:-1]]
    assert all("a" in read(inside, a=kind) for kind in told)
    for kind in {"image", "vector", "category"} - {*told}:
        try:
            (reader,) = read(inside, a=kind).values()
        except UnsupportedSpace:
            continue
        assert reader.taken().words == taken.words, f"{kind} is possible, too"


def test_the_only_key_cannot_be_hidden() -> None:
    (reader,) = read(spaces.Discrete(3)).values()
    assert reader.taken().others == "vector"
    with pytest.raises(UnsupportedSpace):
        read(spaces.Discrete(3), observation="hidden")
