"""What a checkpoint says of the environment, so that its agent can act without building it.

So loading an agent imports nobody's code, and needs no suite to be installed. Checkpoints of
earlier versions lack it, and so do those of environments whose spaces are too large for a manifest
or that JSON cannot hold; whoever loads them asks the suite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dreamer_async import envs
from dreamer_async.config import EnvConfig
from dreamer_async.config.schema import parse_json, shown
from dreamer_async.envs import wire
from dreamer_async.envs.spec import EnvSpec, check_observations

KEY = "spec"
"""Where it is in the manifest."""
LARGEST = 1 << 20
"""Bytes of JSON that a manifest takes."""
MOST_NUMBERS = 1 << 26
"""Numbers in one observation or action that are believed."""
WRONG = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError)
"""What comes of a spec that is none."""
_DTYPE = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")


def encode(spec: EnvSpec) -> dict[str, Any] | None:
    """The spec as JSON, or None where a manifest could not hold it."""
    data = wire.encode_spec(replace(spec, bounds={}, taken={}, remarks=()))
    try:
        text = json.dumps({KEY: data}, allow_nan=False).encode()
        return parse_json(text)[KEY] if len(text) <= LARGEST else None
    except ValueError:  # what is no number, or nests too deeply
        return None


def decode(manifest: Mapping[str, Any], env: EnvConfig) -> EnvSpec | None:
    """The spec of a manifest, None where it has none; ValueError for anything else than a spec."""
    data = manifest.get(KEY)
    if data is None:
        return None
    try:
        spec = wire.decode_spec(env.suite, env.task, data)
        check_observations(spec.obs)
        for obs in spec.obs.values():
            _check_size([*obs.shape, obs.classes or 1])
        _check_size([spec.action.width, spec.action.columns, spec.frames_per_step])
        _check_sizes(spec.native)
    except WRONG as error:
        raise ValueError(f"its {KEY} is none: {f'{error}':.200}") from error
    return spec


def of(manifest: Mapping[str, Any], env: EnvConfig) -> EnvSpec:
    """The spec of a manifest, where it has none what the suite says; ValueError if that is none."""
    return decode(manifest, env) or envs.spec_of(env)


def _check_sizes(native: Any) -> None:
    """Refuse arrays that no environment of anyone has, before they are made."""
    if isinstance(native, Mapping):
        _check_size(native.get("shape", []))
        if native.get("kind") == "MultiBinary":
            _check_size(native["n"])
        dtype = native.get("dtype", "bool")
        if not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
            raise ValueError(f"there is no type {shown(dtype)}")
    if isinstance(native, Mapping | list):
        for inner in native.values() if isinstance(native, Mapping) else native:
            _check_sizes(inner)


def _check_size(shape: int | list[int]) -> None:
    lengths = shape if isinstance(shape, list) else [shape]
    whole = all(type(length) is int and length >= 0 for length in lengths)
    if not whole or math.prod(lengths) > MOST_NUMBERS:
        raise ValueError(f"a shape of {shown(shape)} cannot be")
