"""JSON that somebody else wrote: every type in every place, huge numbers, deep nests."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
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


SCALARS: list[Any] = [True, False, 0, 1, 0.5, "x", None, [], {}]
"""One of every type, and those that equal each other."""


def exchanged(value: Any) -> Iterator[Any]:
    """Copies of a JSON value that have something of another type in one place."""
    for path in paths(value):
        for other in SCALARS if path else []:
            result = inner = copy.deepcopy(value)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = copy.deepcopy(other)
            yield result


def ill_typed(kind: Any, value: Any, where: str = "") -> list[str]:
    """Places in a value that are not just of the type that is declared: True is no number."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        kinds = args if value is not None else ()
        return min((ill_typed(k, value, where) for k in kinds), key=len, default=[])
    if origin is tuple and type(value) is tuple:
        return [w for i, v in enumerate(value) for w in ill_typed(args[0], v, f"{where}[{i}]")]
    if origin is Mapping and isinstance(value, Mapping):
        items = [(f"{where}[{key!r}]", key, v) for key, v in value.items()]
        return [w for at, key, v in items for k, x in zip(args, (key, v), strict=True)
                for w in ill_typed(k, x, at)]  # fmt: skip
    if dataclasses.is_dataclass(kind) and type(value) is kind:
        hints = typing.get_type_hints(kind)
        parts = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(kind)]
        return [w for name, v in parts for w in ill_typed(hints[name], v, f"{where}.{name}")]
    return [] if kind is Any or type(value) is kind else [f"{where} is {value!r}, not {kind}"]
