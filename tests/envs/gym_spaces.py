"""Random gymnasium spaces, as hypothesis draws them, and one example of every kind."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from dreamer_async.envs.native import space_json
from dreamer_async.envs.native.actions import write_actions
from dreamer_async.envs.spaces import read_space
from dreamer_async.envs.spec import EnvSpec

Space = gymnasium.Space[Any]

BOOL: Any = np.bool_  # which gymnasium takes and its types do not

REALS = ("float16", "float32", "float64")
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool")
KEYS = st.text("ab.0/", min_size=1, max_size=3)

shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@st.composite
def real_boxes(draw: st.DrawFn) -> spaces.Box:
    """Boxes with bounds of any size, and without."""
    dtype, shape = np.dtype(draw(st.sampled_from(REALS))), draw(shapes)
    width: Any = 8 * dtype.itemsize
    number = st.floats(width=width, allow_nan=False, allow_infinity=False)
    small = st.floats(-4, 4, width=16)
    bound = st.one_of(small, number, st.just(math.inf), st.just(-math.inf))
    size = math.prod(shape)
    pairs = [sorted((draw(bound), draw(bound))) for _ in range(size)]
    pairs = [[min(low, 1.0), max(high, -1.0)] for low, high in pairs]  # not inf to inf
    low, high = np.array(pairs, dtype).reshape(size, 2).T
    return spaces.Box(low.reshape(shape), high.reshape(shape), shape, dtype.type)


@st.composite
def whole_boxes(draw: st.DrawFn) -> spaces.Box:
    """Boxes of whole numbers and booleans, up to the last of their type."""
    dtype, shape = np.dtype(draw(st.sampled_from(WHOLE))), draw(shapes)
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    number = st.one_of(st.integers(int(least), int(most)), st.sampled_from([0, 1]))
    pairs = [sorted((draw(number), draw(number))) for _ in range(math.prod(shape))]
    if draw(st.booleans()):
        pairs = [[low, min(low + 5, int(most))] for low, _ in pairs]
    low, high = (np.array([pair[i] for pair in pairs], dtype).reshape(shape) for i in (0, 1))
    if dtype.kind == "i" and draw(st.booleans()):
        return spaces.Box(-math.inf, math.inf, shape, dtype.type)
    return spaces.Box(low, high, shape, dtype.type)


@st.composite
def discretes(draw: st.DrawFn) -> Space:
    dtype = draw(st.sampled_from([np.int8, np.int32, np.int64]))
    size = draw(st.integers(1, 100))
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max - size + 1
    return spaces.Discrete(size, start=draw(st.integers(int(least), int(most))), dtype=dtype)


@st.composite
def multi_discretes(draw: st.DrawFn) -> spaces.MultiDiscrete:
    dtype, shape = np.dtype(draw(st.sampled_from(["int8", "int32", "int64"]))), draw(shapes)
    sizes = np.array([draw(st.integers(1, 100)) for _ in range(math.prod(shape))], dtype)
    least = int(np.iinfo(dtype).min)
    first = [draw(st.integers(least, -least - size)) for size in sizes.tolist()]
    start = np.array(first, dtype).reshape(shape)
    return spaces.MultiDiscrete(sizes.reshape(shape), dtype=dtype.type, start=start)


@st.composite
def texts(draw: st.DrawFn) -> spaces.Text:
    longest = draw(st.integers(1, 5))
    alphabet = "".join(draw(st.sets(st.characters(codec="utf-8"), min_size=1, max_size=5)))
    return spaces.Text(longest, min_length=draw(st.integers(0, longest)), charset=alphabet)


leaf_spaces = st.one_of(
    real_boxes(),
    whole_boxes(),
    discretes(),
    multi_discretes(),
    shapes.filter(len).map(spaces.MultiBinary),
    st.integers(1, 3).map(spaces.MultiBinary),
    texts(),
)
"""Spaces that hold no others, all of which an agent can use."""

usable_spaces: st.SearchStrategy[Space] = st.recursive(
    leaf_spaces,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=5,
)
"""Whatever an agent can use, nested."""

EXAMPLES: dict[str, Space] = {
    "Discrete": spaces.Discrete(3, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 5], start=[0, -1]),
    "MultiBinary": spaces.MultiBinary([2, 2]),
    "Box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32)),
    "Box_unbounded": spaces.Box(-math.inf, math.inf, (2,), np.float64),
    "Box_scalar": spaces.Box(0, 1, (), np.float16),
    "Box_point": spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]), dtype=np.float64),
    "Box_few": spaces.Box(0, 4, (2,), np.int32),
    "Box_many": spaces.Box(0, 1000, (2,), np.int64),
    "Box_bool": spaces.Box(0, 1, (2,), BOOL),
    "Text": spaces.Text(3, min_length=0, charset="ab"),
    "Tuple": spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3)]),
    "Dict": spaces.Dict(
        {"arm": spaces.Tuple([spaces.Discrete(2), spaces.Box(-2, 2, (1,))]), "say": spaces.Text(2)}
    ),
}
"""One of every kind, small."""


def described(observation: Space, action: Space) -> EnvSpec:
    """What a worker says of an environment with these spaces."""
    obs = {reader.name: reader.spec for reader in read_space(observation)}
    native = space_json.native(observation, action)
    return EnvSpec("gym", "case", obs, write_actions(action).spec, native=native)


class Recording(gymnasium.Env[Any, Any]):
    """Observe and take examples of one space, and insist on the space of actions."""

    def __init__(self, observation: Space, action: Space) -> None:
        self.observation_space, self.action_space = observation, action
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.observation_space.sample(), float(self.steps), self.steps == 5, False, {}


class EveryKind(Recording):
    """All examples at once."""

    def __init__(self) -> None:
        super().__init__(spaces.Dict(EXAMPLES), spaces.Dict(EXAMPLES))


class Start(Recording):
    """Classes from -1 on, both ways."""

    def __init__(self) -> None:
        super().__init__(EXAMPLES["Discrete"], EXAMPLES["Discrete"])


class Pictures(Recording):
    """Images that are padded, of reals and bits, channels first; symbols; and a Tuple to take."""

    def __init__(self) -> None:
        observation = spaces.Dict(
            {
                "frame": spaces.Box(0, 255, (3, 20, 24), np.uint8),
                "bright": spaces.Box(0, 1, (20, 24, 1), np.float32),
                "mask": spaces.Box(0, 1, (20, 24), BOOL),
                "tiles": spaces.Box(0, 10, (16, 16), np.uint8),
            }
        )
        super().__init__(observation, EXAMPLES["Tuple"])
