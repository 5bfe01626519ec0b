"""Actions that somebody else chose, as the agent would have decided them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.native.executed import ExecutedReader
from dreamer_async.envs.values import BrokenRule

KINDS: list[Any] = [
    spaces.Discrete(4, start=-2),
    spaces.Box(-1, 1, (3,)),
    spaces.Box(np.array([-2, 0, 3], np.float32), np.array([2, 10, 3], np.float32)),
    spaces.Box(-5, 5, (2, 2), np.float64),
    spaces.Box(-1, 2, (3,), np.int8),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [-1, 0]])),
    spaces.MultiBinary((2, 3)),
    spaces.Text(5, min_length=2, charset="abc"),
    spaces.Dict(
        {
            "arm": spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-4, 4, (2,))]),
            "fixed": spaces.Box(2, 2, (1,)),
            "word": spaces.Text(3, charset="xy", min_length=0),
        }
    ),
]


@pytest.mark.parametrize("space", KINDS, ids=str)
def test_what_was_told_is_read_back_as_it_was_decided(space: Any) -> None:
    writer, reader = write_actions(space), ExecutedReader(space)
    for decided in writer.spec.sample(20, np.random.default_rng(0)):
        told = writer.one(decided)
        again = reader.read(told)
        assert again.shape == writer.spec.shape and again.dtype == writer.spec.dtype
        same, lists = writer.one(again), isinstance(space, spaces.Box)
        if lists:
            np.testing.assert_allclose(same, told, atol=1e-6)
        else:
            assert space.contains(same) and _plain(same, 5) == _plain(told, 5)


def _plain(action: Any, digits: int) -> Any:
    """Nested lists of Python's own numbers."""
    if isinstance(action, dict):
        return {key: _plain(part, digits) for key, part in action.items()}
    if isinstance(action, tuple):
        return [_plain(part, digits) for part in action]
    if isinstance(action, str):
        return action
    return np.round(np.asarray(action, np.float64), digits).tolist()


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.Box(-1, 1, (2,)), [0.5, 1.5]),
        (spaces.Box(-1, 1, (2,)), [0.5, np.nan]),
        (spaces.Box(-1, 1, (2,)), [0.5]),
        (spaces.Box(-1, 1, (2,)), "left"),
        (spaces.Discrete(3, start=1), 0),
        (spaces.Discrete(3, start=1), 1.5),
        (spaces.MultiDiscrete([2, 2]), [0, 2]),
        (spaces.MultiBinary(2), [0.0, 1.0]),
        (spaces.Text(2, charset="a"), "b"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 0}),
        (spaces.Dict(a=spaces.Discrete(2)), [0]),
        (spaces.Tuple([spaces.Discrete(2)]), (0, 1)),
        (spaces.Tuple([spaces.Discrete(2)]), 0),
    ],
)
def test_what_nobody_could_have_done_is_refused(space: Any, action: Any) -> None:
    with pytest.raises(BrokenRule, match="the action that was done"):
        ExecutedReader(space).read(action)
