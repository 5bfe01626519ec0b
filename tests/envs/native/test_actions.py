"""What an environment gets: always an action of its own space."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dreamer_async.envs.native import leaves
from dreamer_async.envs.native.actions import MOST_PARTS, describe, write_actions, write_space
from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import ActionSpec
from dreamer_async.envs.vector import ActionCheck
from tests.envs.gym_spaces import EXAMPLES, Space, usable_spaces


def decisions(spec: ActionSpec, seed: int) -> np.ndarray[Any, Any]:
    """Actions of an agent, [N, *]: random ones, both ends, and vectors beyond them."""
    drawn = [spec.sample(6, np.random.default_rng(seed))]
    if spec.kind == "discrete":
        drawn.append(np.array([0, spec.size - 1], np.int32))
    elif spec.kind == "continuous":
        drawn += [np.full((1, spec.size), end, np.float32) for end in (-1, 1, -3, 3)]
    else:
        parts = [decisions(part, seed)[-2:].reshape(2, -1) for _, part in spec.parts]
        drawn.append(np.concatenate(parts, 1).astype(np.float32))
    every = np.concatenate(drawn)
    ActionCheck(spec)(every, len(every))
    return every


def strangers(space: Space, seed: int = 0) -> list[Any]:
    """Actions that are written for a space and are not in it."""
    writer = write_actions(space)
    every = [writer.one(action) for action in decisions(writer.spec, seed)]
    return [action for action in every if not space.contains(action)]


def usable(space: Space) -> bool:
    """Whether there is something to decide and not too much."""
    try:
        return bool(write_actions(space))
    except UnsupportedSpace as error:
        assert any(words in str(error) for words in ("nothing to", "decisions at", "ambiguous"))
        return False


@settings(deadline=None)
@given(usable_spaces, st.integers(0, 99))
def test_every_action_is_in_the_space_of_the_environment(space: Space, seed: int) -> None:
    assume(usable(space))
    assert strangers(space, seed) == []


@settings(deadline=None, max_examples=50)
@given(usable_spaces, st.integers(0, 99))
def test_a_batch_holds_what_is_written_one_by_one(space: Space, seed: int) -> None:
    assume(usable(space))
    writer = write_actions(space)
    action = decisions(writer.spec, seed)
    batch = writer.write(action)
    for row, each in enumerate(action):
        assert_same(pick(batch, row), writer.one(each))


def pick(batch: Any, row: int) -> Any:
    """One action of a batch."""
    if isinstance(batch, dict):
        return {key: pick(part, row) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(pick(part, row) for part in batch)
    return batch[row]


def assert_same(left: Any, right: Any) -> None:
    """The same nesting, values and types."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, tuple):
        assert isinstance(right, tuple)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, str):
        assert left == right
    else:
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_every_kind_are_written_and_described(name: str) -> None:
    space = EXAMPLES[name]
    assert strangers(space) == []
    assert write_actions(space).describe()


@pytest.mark.parametrize("name", ["Discrete", "Box_many", "MultiBinary", "Text", "Dict"])
def test_what_is_not_in_the_space_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: each writer does something else, and `strangers` finds it."""
    monkeypatch.setattr(leaves.ActionWriter, "write", lambda self, action: action * 0 + 10**6)
    monkeypatch.setattr(leaves.ClassesWriter, "take", lambda self, columns: columns)
    monkeypatch.setattr(leaves.TextWriter, "take", lambda self, columns: ["?"] * len(columns))
    assert strangers(EXAMPLES[name])


# -- kind by kind ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiDiscrete([2, 3]), r"MultiDiscrete\(\[2 3\]\) is not supported here"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "Dict.* is not supported here"),
        (spaces.Box(1, 1, (2,)), "leaves nothing to decide"),
        (spaces.Box(0, 1, (0,)), "leaves nothing to decide"),
        (spaces.Discrete(1), "leaves nothing to decide"),
        (spaces.Discrete(2**20 + 1), "1,048,577 classes, but 1,048,576 are the most"),
        (spaces.Box(0, 5, (2,), np.int32), "is not supported here; Discrete and Box of real"),
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
        (spaces.Dict({}), "leaves nothing to decide"),
        (spaces.Tuple([]), "leaves nothing to decide"),
        (spaces.Box(0, 1, (0,)), "leaves nothing to decide"),
        (spaces.Dict({"a": spaces.Box(1, 1, (2,))}), "leaves nothing to decide"),
        (spaces.Discrete(1, start=4), "leaves nothing to decide"),
        (spaces.MultiDiscrete([1, 1]), "leaves nothing to decide"),
        (spaces.Dict({"a": spaces.Discrete(1), "b": spaces.Text(1, charset="x")}), "nothing to"),
        (spaces.Dict({"a": spaces.MultiBinary(2), "a/1": spaces.Discrete(2)}), "ambiguous"),
        (spaces.MultiDiscrete([2, 2**40]), "classes, but 1,048,576 are the most"),
        (spaces.MultiBinary(MOST_PARTS + 1), "257 decisions at once, but 256 are the most"),
        (spaces.Text(1000), "1,000 characters out of 62 is too large"),
        (spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}), "of key a has no fixed length"),
        (spaces.Graph(spaces.Discrete(2), None), "has no fixed size: wrap"),
        (spaces.OneOf([spaces.Discrete(2)]), "is another one in every step: wrap"),
    ],
)
def test_several_actions_that_are_refused(space: gymnasium.Space, message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        write_actions(space)


def test_one_class_is_taken_where_there_is_more_to_decide() -> None:
    writer = write_actions(spaces.MultiDiscrete([1, 3]))
    assert [part.size for _, part in writer.spec.parts] == [1, 3]
    (reader,) = read_space(spaces.Discrete(1, start=4))
    assert reader.spec.classes == 1 and reader.read(np.array([4])).tolist() == [0]


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [
        (-np.inf, np.inf, (-1, 1)),
        (-1.7e308, 1.7e308, (-1, 1)),
        (-3.4e38, 3.4e38, (-1, 1)),
        (0, np.inf, (0, 2)),
        (5, np.inf, (5, 7)),
        (-100, np.inf, (-1, 1)),
        (-np.inf, 0, (-2, 0)),
        (-np.inf, 100, (-1, 1)),
        (-1e7, 1e7, (-1e7, 1e7)),
    ],
)
def test_where_there_is_no_bound_the_nearest_interval_to_our_own_is_taken(
    low: float, high: float, ends: tuple[float, float]
) -> None:
    space = spaces.Box(low, high, (1,), np.float64)
    writer = write_space(space)
    got = writer.write(np.array([[-1], [1]], np.float32))
    assert tuple(got[:, 0]) == ends
    assert ("a bound is infinite" in writer.describe()) == (abs(ends[0]) < 1e7)


def test_bounds_are_taken_dimension_by_dimension() -> None:
    low, high = np.array([-np.inf, 0, 3, 1]), np.array([np.inf, 10, 3, np.inf])
    writer = write_actions(spaces.Box(low, high, dtype=np.float64))
    assert writer.spec == ActionSpec("continuous", 3), "the third has one possible value"
    assert writer.one(np.array([1, 1, 1], np.float32)).tolist() == [1, 10, 3, 3]
    assert writer.describe() == (
        "float64 [4] from -1 to 10, each its own, 1 of them always the same "
        "(a bound is infinite in 2 of 4 dimensions)"
    )


@pytest.mark.parametrize(("most", "kind"), [(31, "several"), (32, "continuous")])
def test_few_whole_numbers_are_classes_and_many_are_rounded(most: int, kind: str) -> None:
    writer = write_actions(spaces.Box(0, most, (2,), np.uint8))
    assert writer.spec.kind == kind
    top = [most, 0] if kind == "several" else [1, -1]
    assert writer.one(np.array(top, np.float32)).tolist() == [most, 0]


def test_the_last_whole_numbers_of_a_type_are_no_bounds() -> None:
    writer = write_actions(spaces.Box(-np.inf, np.inf, (1,), np.int64))
    assert writer.spec.parts == (("0", ActionSpec("discrete", 3)),)
    assert write_actions(spaces.Box(-128, 127, (1,), np.int8)).spec.kind == "continuous"


def test_a_text_ends_at_its_first_zero_and_not_before_the_space_allows() -> None:
    space = spaces.Text(3, min_length=1, charset="ba")
    writer = write_actions(space)
    assert [part.size for _, part in writer.spec.parts] == [2, 3, 3]
    texts = writer.write(np.array([[0, 0, 2], [1, 2, 0], [0, 1, 2]], np.float32))
    assert texts == ["a", "bb", "aab"]


def test_a_tuple_comes_back_as_one() -> None:
    space = spaces.Dict({"b": spaces.Tuple([spaces.Discrete(2), spaces.Dict({})])})
    assert write_actions(space).one(np.array([1], np.float32)) == {"b": (1, {})}


@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_one_action_is_an_array_where_a_box_wants_one(shape: tuple[int, ...]) -> None:
    writer = write_actions(spaces.Box(-1, 1, shape))
    action = writer.one(np.zeros(writer.spec.size, np.float32))
    assert isinstance(action, np.ndarray) and action.shape == shape


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Discrete", "one of 3 -> int64 -1 to 1"),
        ("MultiDiscrete", "one of 2, one of 5 -> int64 [2] from 0 to 1, -1 to 3"),
        ("MultiDiscrete_four", "4 times one of 2 to 5 -> int64 [4] from 0 to 4, each its own"),
        ("Box_many", "2 numbers in [-1, 1] -> int64 [2] from 0 to 1000, rounded"),
        ("Text", "3 times one of 3 -> a text of 0 to 3 characters out of 2"),
        (
            "Dict",
            "arm/0: one of 2 -> int64 0 to 1; arm/1: 1 number in [-1, 1] -> float32 [1] from -2 "
            "to 2; say: one of 62, one of 63 -> a text of 1 to 2 characters out of 62",
        ),
    ],
)
def test_what_is_decided_and_what_arrives_is_said(name: str, words: str) -> None:
    more = {"MultiDiscrete_four": spaces.MultiDiscrete([2, 5, 2, 2])}
    assert describe(write_actions((EXAMPLES | more)[name])) == words
