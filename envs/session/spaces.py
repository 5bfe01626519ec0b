"""Gymnasium spaces as JSON and back, so that a run holds the spaces of whoever calls it.

This module imports gymnasium; only modules that are themselves imported late may import it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.spaces import UnsupportedSpace

EXACT = 1 << 53
"""Whole numbers beyond this are written as text: not every reader of JSON holds them."""


def encode_space(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """Write a space as JSON values: {"kind": ..., its parameters}; UnsupportedSpace for others."""
    match space:
        case spaces.Box():
            bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
            return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            sizes = {"nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
            return {"kind": "MultiDiscrete", **sizes, "dtype": str(space.dtype)}
        case spaces.MultiBinary():
            n = space.n if isinstance(space.n, int) else list(space.shape)
            return {"kind": "MultiBinary", "n": n}
        case spaces.Text():
            lengths = {"min_length": space.min_length, "max_length": space.max_length}
            return {"kind": "Text", **lengths, "charset": "".join(sorted(space.character_set))}
        case spaces.Dict():
            parts = [[_key(space, key), encode_space(part)] for key, part in space.spaces.items()]
            return {"kind": "Dict", "spaces": parts}
        case spaces.Tuple():
            return {"kind": "Tuple", "spaces": [encode_space(part) for part in space.spaces]}
    raise UnsupportedSpace(f"space {space} cannot be kept with a run; {', '.join(_DECODERS)} can")


def decode_space(data: Any) -> gymnasium.Space[Any]:
    """Read `encode_space`'s result back; ValueError for anything else."""
    try:
        return _DECODERS[data["kind"]](data)
    except (AssertionError, AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not a space: {type(error).__name__} {error}") from None


def _key(space: spaces.Dict, key: Any) -> str:
    if not isinstance(key, str):
        raise UnsupportedSpace(f"space {space} has a key {key!r}; keys must be text")
    return key


def _numbers(values: NDArray[Any]) -> Any:
    """Bounds as nested lists, or as one number where all are equal."""
    flat = values.reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return _number(flat[0].item())
    return _nested(values.tolist())


def _nested(values: Any) -> Any:
    return [_nested(each) for each in values] if isinstance(values, list) else _number(values)


def _number(value: float) -> Any:
    """A number, as text where JSON has none."""
    return value if math.isfinite(value) and abs(value) <= EXACT else str(value)


def _box(data: Mapping[str, Any]) -> spaces.Box:
    dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
    low, high = (np.broadcast_to(_array(data[name], dtype), shape) for name in ("low", "high"))
    return spaces.Box(low.copy(), high.copy(), shape, dtype.type)


def _array(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    whole = dtype.kind in "iub"

    def read(each: Any) -> Any:
        if isinstance(each, list):
            return [read(inner) for inner in each]
        return (int if whole else float)(each)

    return np.array(read(value), dtype)


def _multi_discrete(data: Mapping[str, Any]) -> spaces.MultiDiscrete:
    dtype = np.dtype(data["dtype"])
    sizes, start = (np.array(data[name], dtype) for name in ("nvec", "start"))
    return spaces.MultiDiscrete(sizes, dtype.type, start=start)


def _dict(data: Mapping[str, Any]) -> spaces.Dict:
    return spaces.Dict([(str(key), decode_space(part)) for key, part in data["spaces"]])


_DECODERS: Mapping[str, Callable[[Mapping[str, Any]], gymnasium.Space[Any]]] = {
    "Box": _box,
    "Discrete": lambda data: spaces.Discrete(int(data["n"]), start=int(data["start"])),
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": lambda data: spaces.MultiBinary(data["n"]),
    "Text": lambda data: spaces.Text(
        int(data["max_length"]), min_length=int(data["min_length"]), charset=data["charset"]
    ),
    "Dict": _dict,
    "Tuple": lambda data: spaces.Tuple([decode_space(part) for part in data["spaces"]]),
}
