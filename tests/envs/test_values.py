"""Values of an environment: what is clear is taken, what would be changed is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dreamer_async.envs.observed.reader import ObsReader, UnsupportedSpace
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.values import (
    BrokenRule,
    flag,
    number,
    observation,
    read_batch,
    read_one,
)
from tests.envs.gym_spaces import usable_spaces

LARGEST = float(np.finfo(np.float32).max)
CLASSES = spaces.Discrete(3)
PAIRS = spaces.MultiDiscrete([2, 5], start=[0, -1])
TABLE = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
ONE = spaces.Box(-np.inf, np.inf, (), np.float32)
IMAGE = spaces.Box(0, 255, (16, 32), np.uint8)
PLANES = spaces.Box(0, 255, (3, 16, 32), np.uint8)


def read(space: gymnasium.Space[Any], value: Any) -> Any:
    (reader,) = read_space(space)
    got = observation(reader, value)
    assert (got.shape, got.dtype) == (reader.spec.shape, reader.spec.dtype)
    return got.tolist()


@pytest.mark.parametrize(
    ("space", "value", "row"),
    [
        (CLASSES, 2, 2),
        (CLASSES, np.int8(2), 2),
        (CLASSES, np.uint64(2), 2),
        (CLASSES, np.array([2]), 2),
        (CLASSES, 2.0, 2),
        (CLASSES, True, 1),
        (spaces.Discrete(3, start=-1), -1, 0),
        (spaces.Discrete(200, start=-90), np.int8(100), 190),
        (spaces.Discrete(3, start=2**40), 2**40 + 1, 1),
        (PAIRS, [1, 3], [1, 4]),
        (PAIRS, np.array([[1], [3]], np.float32), [1, 4]),
        (TABLE, np.arange(6.0).reshape(2, 3), [0, 1, 2, 3, 4, 5]),
        (TABLE, np.ones((1, 2, 3), np.bool_), [1] * 6),
        (TABLE, np.full((2, 3), 2**63 + 2**40, np.uint64), [float(2**63 + 2**40)] * 6),
        (TABLE, np.full((2, 3), -LARGEST), [-LARGEST] * 6),
        (TABLE, np.full((2, 3), LARGEST, np.float32), [LARGEST] * 6),
        (TABLE, np.full((2, 3), 60000, np.float16), [60000] * 6),
        (ONE, 0.5, [0.5]),
        (ONE, np.array([[0.5]]), [0.5]),
        (IMAGE, np.full((16, 32), 7, np.uint8), np.full((16, 32, 1), 7).tolist()),
        (IMAGE, np.full((16, 32, 1), 7, np.uint8), np.full((16, 32, 1), 7).tolist()),
        (PLANES, np.full((3, 16, 32), 7, np.uint8), np.full((16, 32, 3), 7).tolist()),
    ],
)
def test_what_is_clear_is_taken(space: gymnasium.Space[Any], value: Any, row: Any) -> None:
    assert read(space, value) == row


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (CLASSES, 1.5, r"observation is 1.5, which is no class of 0 to 2"),
        (CLASSES, 3, "is 3, which is no class"),
        (CLASSES, -1, "is -1, which is no class"),
        (CLASSES, 2**32 + 1, "is 4294967297, which is no class"),
        (CLASSES, np.uint64(2**64 - 1), "is 18446744073709551615, which is no class"),
        (CLASSES, np.nan, "is nan, which is no class"),
        (CLASSES, np.array([0, 1]), r"has shape \[2\], but its space says \[\]"),
        (CLASSES, None, "the observation is None"),
        (CLASSES, "1", r"must be numbers, not '1' \(str\)"),
        (CLASSES, 1 + 0j, "must be numbers, not"),
        (CLASSES, 2**70, "must be numbers, not 1180591620717411303424"),
        pytest.param(CLASSES, 10**5000, "not a number of 16610 bits", id="huge"),
        pytest.param(CLASSES, [10**5000], "must be numbers, not a list", id="list of huge"),
        (PAIRS, [1, 4], r"observation\[1\] is 4, which is no class of -1 to 3"),
        (PAIRS, [2, 0], r"observation\[0\] is 2, which is no class of 0 to 1"),
        (TABLE, np.zeros((3, 2)), r"has shape \[3, 2\], but its space says \[2, 3\]"),
        (TABLE, np.zeros(6), r"has shape \[6\]"),
        (TABLE, [[1, 2, 3], [4, 5]], "must be numbers, not"),
        (TABLE, [[1, 2, 3], [4, 5, None]], "must be numbers, not"),
        (TABLE, [[1, 2, 3], [4, 5, np.nan]], r"observation\[1, 2\] is nan, which is not finite"),
        (TABLE, [[1, 2, 3], [4, -np.inf, 6]], r"\[1, 1\] is -inf, which is not finite"),
        (TABLE, [[1, 2, 3], [4, 1e39, 6]], r"\[1, 1\] is 1e\+39, which does not fit float32"),
        (TABLE, np.full((2, 3), np.inf, np.float16), r"\[0, 0\] is inf, which is not finite"),
        (IMAGE, np.zeros((32, 16), np.uint8), r"has shape \[32, 16\]"),
        (IMAGE, np.zeros((16, 32)), "is float64, but its space says uint8"),
        (PLANES, np.zeros((16, 32, 3), np.uint8), r"says \[3, 16, 32\]"),
    ],
)
def test_what_would_be_changed_is_refused(
    space: gymnasium.Space[Any], value: Any, message: str
) -> None:
    with pytest.raises(BrokenRule, match=message):
        read(space, value)


def test_an_error_names_the_key() -> None:
    space = spaces.Dict({"arm": spaces.Dict({"joint.1": spaces.Box(-1, 1, (2,))})})
    with pytest.raises(BrokenRule, match=r"observation arm/joint.1\[1\] is nan"):
        read(space, {"arm": {"joint.1": [0, np.nan]}})
    with pytest.raises(BrokenRule, match=r"has no 'arm/joint.1', which its space names"):
        read(space, {"arm": np.zeros(2)})


@pytest.mark.parametrize(
    "value",
    [1, 1.0, True, np.float64(1), np.int8(1), np.bool_(True), np.array(1), np.array([[1.0]]), [1],
     Decimal(1), np.array([Decimal(1)])],
)  # fmt: skip
def test_one_number_is_taken_however_it_is_written(value: Any) -> None:
    assert number("the reward", value) == 1.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the reward must be a number, not None"),
        ("1", "must be a number"),
        (np.array(["1"]), "must be a number"),
        (np.array(["1"], object), "must be a number"),
        (1j, "must be a number"),
        ([], "must be a number"),
        ([1, 2], r"must be a number, not \[1, 2\]"),
        ({}, "must be a number"),
        (np.nan, "is nan, which is not finite"),
        (-np.inf, "is -inf, which is not finite"),
        (np.array([np.inf]), "is inf, which is not finite"),
        (1e39, r"is 1e\+39, which does not fit float32"),
        (np.float64(-1e300), r"is -1e\+300, which does not fit float32"),
        (10**40, r"is 1e\+40, which does not fit float32"),
        (10**400, "which does not fit float32"),
        pytest.param(10**5000, "is a number of 16610 bits, which does not fit", id="huge"),
    ],
)
def test_what_is_not_one_number_is_no_reward(value: Any, message: str) -> None:
    with pytest.raises(BrokenRule, match=message):
        number("the reward", value)


@pytest.mark.parametrize("kind", [bool, int, float, np.bool_, np.int8, np.float32, np.array])
def test_true_and_false_are_taken_however_they_are_written(kind: Any) -> None:
    assert flag("terminated", kind(True)) is True and flag("terminated", kind(False)) is False
    assert flag("terminated", np.array([kind(1)])) is True


@pytest.mark.parametrize("value", [None, np.nan, 2, 0.5, "no", [], [True, False], {}, np.array([])])
def test_what_is_neither_true_nor_false_is_no_flag(value: Any) -> None:
    with pytest.raises(BrokenRule, match="terminated must be True or False, not"):
        flag("terminated", value)


@pytest.mark.parametrize("space", [CLASSES, PAIRS, TABLE, ONE, IMAGE, PLANES])
def test_whatever_a_space_samples_is_read_as_it_is_in_batches(space: gymnasium.Space[Any]) -> None:
    (reader,) = read_space(space)
    space.seed(1)
    for _ in range(50):
        value = space.sample()
        assert read(space, value) == reader.read(np.asarray(value)[None])[0].tolist()


# -- texts, tuples and whole observations --------------------------------------------------------

WORDS = spaces.Dict({"say": spaces.Tuple([spaces.Text(3, charset="abc"), spaces.Discrete(2)])})


def test_a_text_is_read_and_may_end_early() -> None:
    readers = read_space(WORDS)
    row = read_one(readers, {"say": ("cab", 1)})
    assert row["say/0"].tolist() == [3, 1, 2] and row["say/1"] == 1
    assert read_one(readers, {"say": [np.array("b"), 0]})["say/0"].tolist() == [2, 0, 0]
    assert read_one(readers, {"say": ("", 0)})["say/0"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"say": ("abca", 0)}, "observation say/0 has 4 characters, but its space says 3 at most"),
        ({"say": ("aB", 0)}, r"observation say/0\[1\] is 'B', which is no character of its space"),
        ({"say": (7, 0)}, r"observation say/0 must be a text, not 7 \(int\)"),
        ({"say": ("a",)}, "the observation has no 'say/1', which its space names"),
        ({"say": "a"}, "has no 'say/0'"),
    ],
)
def test_what_is_no_text_of_the_space_is_refused(value: Any, message: str) -> None:
    with pytest.raises(BrokenRule, match=message):
        read_one(read_space(WORDS), value)


@settings(deadline=None, max_examples=60)
@given(usable_spaces, st.integers(0, 99))
def test_a_batch_is_read_as_one_by_one(space: gymnasium.Space[Any], seed: int) -> None:
    """As gymnasium itself makes batches of observations."""
    readers = readable(space)
    assume(readers)
    space.seed(seed)
    each = [bounded(space.sample()) for _ in range(3)]
    batch = concatenate(space, each, create_empty_array(space, 3))
    rows = read_batch(readers, batch)
    for i, one in enumerate(read_one(readers, obs) for obs in each):
        for name, value in one.items():
            np.testing.assert_array_equal(rows[name][i], value)
            assert (rows[name].dtype, rows[name].shape[1:]) == (value.dtype, np.shape(value))


def readable(space: gymnasium.Space[Any]) -> tuple[ObsReader, ...]:
    """How to read it, unless two keys have one name."""
    try:
        return read_space(space)
    except UnsupportedSpace as error:
        assert "ambiguous" in str(error)
        return ()


def bounded(value: Any) -> Any:
    """A sample without numbers that float32 cannot hold."""
    if isinstance(value, dict):
        return {key: bounded(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(bounded(part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.clip(np.nan_to_num(value), -6e4, 6e4)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"say": (["a", "b"], np.zeros(3, int))},
            r"say/1 has shape \[3\], but its space says \[2\]",
        ),
        ({"say": (["a", "B"], np.zeros(2, int))}, r"say/0\[1\]\[0\] is 'B'"),
        ({"say": (["a", "b"], np.array([0, 2]))}, r"say/1\[1\] is 2, which is no class of 0 to 1"),
        ({"say": ("ab", np.zeros(2, int))}, "need a leading axis, which 'ab' .str. lacks"),
        ({"say": ((), ())}, "a batch of observations is empty"),
    ],
)
def test_an_error_in_a_batch_names_its_row(value: Any, message: str) -> None:
    with pytest.raises(BrokenRule, match=message):
        read_batch(read_space(WORDS), value)
