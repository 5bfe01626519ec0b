"""Gymnasium's spaces as JSON and back, every number exactly as it was.

So a worker says which spaces its environment has, and whoever acts later knows them without it.
Infinite bounds are strings, as JSON has no word for them, and so are whole numbers that not every
reader of JSON can hold.

This module imports gymnasium; only modules that are themselves imported late may import it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.observed.reader import UnsupportedSpace
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec

EXACT = 1 << 53
"""Whole numbers beyond this are written as text."""

Space = gymnasium.Space[Any]
Json = dict[str, Any]


def encode(space: Space) -> Json:
    """Turn a space into JSON; UnsupportedSpace for keys of a Dict that JSON cannot hold.

    A kind that gymnasium does not have comes back as a `gymnasium.Space` of nothing.
    """
    for kind, encoder in _ENCODERS.items():
        if isinstance(space, kind):
            return {"kind": kind.__name__} | encoder(space)
    return {"kind": "Space"}


def decode(data: Any) -> Space:
    """Turn JSON from `encode` back into the space; ValueError for anything else."""
    try:
        return _DECODERS[data["kind"]](data)
    except (AssertionError, AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not a space: {type(error).__name__} {error}") from None


def native(observation: Space, action: Space) -> Json:
    """The field of this name of `EnvSpec`."""
    return {"observation": encode(observation), "action": encode(action)}


def spaces_of(spec: EnvSpec) -> tuple[Space, Space]:
    """What an environment itself delivers and takes: its observation and its action space."""
    if spec.native:
        return decode(spec.native["observation"]), decode(spec.native["action"])
    parts = OrderedDict((name, _of_observation(entry)) for name, entry in spec.obs.items())
    return spaces.Dict(parts), _of_action(spec.action)


def _of_observation(spec: ObsSpec) -> Space:
    if spec.dtype == "uint8":
        return spaces.Box(0, 255, spec.shape, np.uint8)
    if spec.dtype == "float32":
        return spaces.Box(-math.inf, math.inf, spec.shape, np.float32)
    if not spec.shape:
        return spaces.Discrete(spec.classes)
    return spaces.MultiDiscrete(np.full(spec.shape, spec.classes))


def _of_action(spec: ActionSpec) -> Space:
    if spec.kind == "several":
        return spaces.Dict(OrderedDict((name, _of_action(part)) for name, part in spec.parts))
    if spec.kind == "discrete":
        return spaces.Discrete(spec.size)
    return spaces.Box(-1, 1, (spec.size,), np.float32)


# -- from and to JSON, kind by kind ------------------------------------------------------------


def _encode_box(space: spaces.Box) -> Json:
    if space.dtype.kind == "f" and space.dtype.itemsize > 8:
        raise UnsupportedSpace(f"space {space} has numbers that no other type can hold")
    return {
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": _numbers(np.where(space.bounded_below, space.low.astype(object), -math.inf)),
        "high": _numbers(np.where(space.bounded_above, space.high.astype(object), math.inf)),
    }


def _decode_box(data: Mapping[str, Any]) -> spaces.Box:
    shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
    low, high = (_array(data[name], shape) for name in ("low", "high"))
    below, above = np.array(low != -math.inf, bool), np.array(high != math.inf, bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = np.where(below, low, info.min), np.where(above, high, info.max)
    box: Any = spaces.Box(low.astype(dtype), high.astype(dtype), shape, dtype)
    box.bounded_below, box.bounded_above = below, above
    return box


def _numbers(values: NDArray[Any]) -> Any:
    """Numbers of an array, [*], flat; only one if all are the same."""
    flat = [
        number if math.isfinite(number) and abs(number) <= EXACT else str(number)
        for number in values.reshape(-1).tolist()
    ]
    return flat[0] if flat and all(number == flat[0] for number in flat) else flat


def _array(numbers: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of `_numbers`, of Python's own numbers, which are exact."""
    size = math.prod(shape)
    flat = numbers if isinstance(numbers, list) else [numbers] * size
    values = np.empty(size, object)
    values[:] = [_number(number) if isinstance(number, str) else number for number in flat]
    return values.reshape(shape)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _encode_discrete(space: spaces.Discrete) -> Json:
    return {"n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}


def _decode_discrete(data: Mapping[str, Any]) -> spaces.Discrete:
    dtype = np.dtype(data["dtype"])
    given: dict[str, Any] = {} if dtype == np.int64 else {"dtype": dtype.type}  # new in 1.2.2
    return spaces.Discrete(data["n"], start=data["start"], **given)


def _encode_multi_discrete(space: spaces.MultiDiscrete) -> Json:
    return {
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "nvec": _numbers(np.asarray(space.nvec)),
        "start": _numbers(np.asarray(space.start)),
    }


def _decode_multi_discrete(data: Mapping[str, Any]) -> spaces.MultiDiscrete:
    shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
    nvec, start = (_array(data[name], shape).astype(dtype) for name in ("nvec", "start"))
    return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)


def _encode_multi_binary(space: spaces.MultiBinary) -> Json:
    return {"n": space.n if isinstance(space.n, int) else list(space.shape)}


def _encode_text(space: spaces.Text) -> Json:
    letters = "".join(space.character_list)
    return {"shortest": space.min_length, "longest": space.max_length, "letters": letters}


def _decode_text(data: Mapping[str, Any]) -> spaces.Text:
    shortest, letters = data["shortest"], data["letters"]
    return spaces.Text(data["longest"], min_length=shortest, charset=letters)


def _encode_dict(space: spaces.Dict) -> Json:
    for key in space.spaces:
        if not isinstance(key, str | int):
            raise UnsupportedSpace(f"key {key!r} of a Dict is neither a string nor a number")
    return {"spaces": [[key, encode(part)] for key, part in space.spaces.items()]}


def _decode_dict(data: Mapping[str, Any]) -> spaces.Dict:
    return spaces.Dict(OrderedDict((key, decode(part)) for key, part in data["spaces"]))


def _encode_graph(space: spaces.Graph) -> Json:
    edges = None if space.edge_space is None else encode(space.edge_space)
    return {"nodes": encode(space.node_space), "edges": edges}


def _decode_graph(data: Mapping[str, Any]) -> spaces.Graph:
    nodes: Any = decode(data["nodes"])
    edges: Any = data["edges"] and decode(data["edges"])
    return spaces.Graph(nodes, edges)


_ENCODERS: dict[type[Space], Callable[[Any], Json]] = {
    spaces.Box: _encode_box,
    spaces.Discrete: _encode_discrete,
    spaces.MultiDiscrete: _encode_multi_discrete,
    spaces.MultiBinary: _encode_multi_binary,
    spaces.Text: _encode_text,
    spaces.Dict: _encode_dict,
    spaces.Tuple: lambda space: {"spaces": [encode(part) for part in space.spaces]},
    spaces.Graph: _encode_graph,
    spaces.Sequence: lambda space: {"of": encode(space.feature_space), "stack": space.stack},
    spaces.OneOf: lambda space: {"spaces": [encode(part) for part in space.spaces]},
}
_DECODERS: dict[str, Callable[[Any], Space]] = {
    "Box": _decode_box,
    "Discrete": _decode_discrete,
    "MultiDiscrete": _decode_multi_discrete,
    "MultiBinary": lambda data: spaces.MultiBinary(data["n"]),
    "Text": _decode_text,
    "Graph": _decode_graph,
    "Sequence": lambda data: spaces.Sequence(decode(data["of"]), stack=data["stack"]),
    "OneOf": lambda data: spaces.OneOf([decode(part) for part in data["spaces"]]),
    "Dict": _decode_dict,
    "Tuple": lambda data: spaces.Tuple([decode(part) for part in data["spaces"]]),
    "Space": lambda data: gymnasium.Space(),
}
