"""What the single numbers of an observation are called: the environment's key, and the place in its
own shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from dreamer_async.envs.observed import numbers
from dreamer_async.envs.spec import EnvSpec


def names(spec: EnvSpec, key: str, most: int) -> list[str]:
    """Names of the first `most` numbers of an observation key, in the order in which they are
    stored: arm/joints[0,2], or the key alone where it is one number. Numbers of classic control
    have names of their own."""
    if known := numbers.of_vector(spec, key):
        return [*known][:most]
    own = spec.taken[key].key if key in spec.taken else key
    shape, size = spec.obs[key].shape, math.prod(spec.obs[key].shape)
    leaves = dict(_leaves(spec.native.get("observation"), ()))
    if math.prod(leaves.get(own, ())) == size:
        shape = leaves.get(own, ())
    if size == 1:
        return [own][:most]
    places = product(*map(range, shape))
    return [f"{own}[{','.join(map(str, place))}]" for place, _ in zip(places, range(most))]  # noqa: B905


def _leaves(data: Any, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Key and shape of each leaf of a space as `space_json` writes it."""
    if not isinstance(data, Mapping):
        return
    match data.get("kind"):
        case "Dict":
            for key, part in data["spaces"]:
                yield from _leaves(part, (*path, str(key)))
        case "Tuple":
            for place, part in enumerate(data["spaces"]):
                yield from _leaves(part, (*path, str(place)))
        case _:
            yield "/".join(path) or "observation", _shape(data)


def _shape(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a leaf; () for a single number."""
    if "longest" in data:
        return (data["longest"],)
    shape = data.get("shape", data["n"] if data.get("kind") == "MultiBinary" else ())
    return (shape,) if isinstance(shape, int) else tuple(shape)
