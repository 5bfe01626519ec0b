"""JSON that somebody else wrote: every type in every place, huge numbers, deep nests."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

NUMBERS = [-1, 0, 1 << 70, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf")]
TEXTS = ["", "7", "\x1b[2J", "\ud800", "a" * 5000]
NESTS = [[], {}, [[[[]]]], {"a": {"b": []}}, [1] * 300]
NASTY = st.sampled_from([None, True, *NUMBERS, *TEXTS, *NESTS])
JSON = st.recursive(
    NASTY | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value, as the keys that lead to it."""
    if not isinstance(value, dict | list):
        return [at]
    keys = value if isinstance(value, dict) else range(min(3, len(value)))
    return [at, *(path for key in keys for path in paths(value[key], (*at, key)))]


@st.composite
def spoiled(draw: st.DrawFn, value: Any) -> Any:
    """A copy of a JSON value with something else, or nothing, in one to three places."""
    result = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in paths(result) if p] or [("x",)]))
        inner = result
        for key in path[:-1]:
            inner = inner[key]
        if draw(st.integers(0, 4)) == 0 and isinstance(inner, dict):
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = copy.deepcopy(draw(JSON))  # the samples are shared
    return result
