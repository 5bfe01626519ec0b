"""What has changed in an environment since an agent learned in it, in words."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from dreamer_async import envs
from tests.envs.gym_spaces import EXAMPLES, Space, described

SEEN = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3))
DONE = spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("seen", "done", "words"),
    [
        (
            spaces.Dict(a=spaces.Box(-1, 1, (3,)), b=spaces.Discrete(3)),
            DONE,
            "observation 'a' is float32 [3], not float32 [2]",
        ),
        (
            spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(4)),
            DONE,
            "observation 'b' is int32 [] of 4 classes, not int32 [] of 3 classes",
        ),
        (spaces.Dict(a=SEEN["a"]), DONE, "'b' is missing, not int32"),
        (spaces.Dict({**SEEN.spaces, "c": DONE}), DONE, "'c' is float32 [2], not missing"),
        (SEEN, spaces.Box(-1, 2, (2,)), "Box(-1.0, 2.0, (2,), float32), not Box(-1.0, 1.0, (2,)"),
        (SEEN, spaces.Discrete(2), "the action is Discrete(2), not Box("),
    ],
)
def test_other_observations_actions_and_bounds_are_told(
    seen: Space, done: Space, words: str
) -> None:
    (said,) = envs.changes(described(SEEN, DONE), described(seen, done))
    assert words in said and "\n" not in said


def test_one_bound_of_many_is_told_in_one_line() -> None:
    low = np.full((400,), -1, np.float32)
    before = described(SEEN, spaces.Box(low, np.linspace(0, 1, 400, dtype=np.float32)))
    low[200] = -2
    now = described(SEEN, spaces.Box(low, np.linspace(0, 1, 400, dtype=np.float32)))
    (said,) = envs.changes(before, now)
    assert said.startswith("the action is Box(") and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_the_same_fits_whatever_its_types(name: str) -> None:
    space = described(EXAMPLES[name], EXAMPLES[name])
    assert envs.changes(space, space) == []
    double = spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(-1, 1, (2,), np.float64))
    other = described(double, spaces.Box(-1, 1, (2,), np.float64))
    assert envs.changes(described(SEEN, DONE), other) == []
