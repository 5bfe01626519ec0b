"""Which key does what: actions are digits and letters, and arrows where they have a meaning."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.spec import EnvSpec

RESERVED = "qr"
"""Letters that leave and restart."""
NAMES = [*"1234567890", *(c for c in string.ascii_lowercase if c not in RESERVED)]
"""Keys of actions 0, 1, 2, ..."""
ATARI = {"up": 2, "right": 3, "left": 4, "down": 5}
"""Of the full set of actions."""
MINIGRID = {"left": 0, "right": 1, "up": 2}
_AXES = {"left": (0, -1.0), "right": (0, 1.0), "down": (1, -1.0), "up": (1, 1.0)}
"""Dimension and direction of a vector."""


def bindings(spec: EnvSpec) -> dict[str, NDArray[Any]]:
    """{key: action} of a task; empty where one key cannot be one action."""
    action = spec.action
    if action.kind == "discrete":
        keys = dict(zip(NAMES, range(action.size), strict=False)) | _arrows(spec)
        return {
            key: np.array(index, np.int32) for key, index in keys.items() if index < action.size
        }
    if action.kind == "several":
        return {}
    found = {"0": np.zeros(action.size, np.float32)}
    for key, (dimension, direction) in _AXES.items():
        if dimension < action.size:
            found[key] = _along(action.size, dimension, direction)
    for dimension in range(min(action.size, 9)):
        found[NAMES[dimension]] = _along(action.size, dimension, 1.0)
        found[string.ascii_lowercase[dimension]] = _along(action.size, dimension, -1.0)
    return found


def _along(size: int, dimension: int, direction: float) -> NDArray[np.float32]:
    vector = np.zeros(size, np.float32)
    vector[dimension] = direction
    return vector


def _arrows(spec: EnvSpec) -> dict[str, int]:
    """Arrows of the tasks whose actions are known; of three actions the first and the last."""
    if spec.suite == "atari":
        return ATARI
    if spec.suite == "minigrid":
        return MINIGRID
    return {"left": 0, "right": 2} if spec.action.size == 3 else {}


def legend(spec: EnvSpec) -> str:
    """Which keys act, in one line."""
    action = spec.action
    if action.kind == "several":
        return "several actions at once: only the agent can play"
    if action.kind == "continuous":
        last = min(action.size, 9)
        up, down = ("1", "a")
        if last > 1:
            up, down = f"1-{last}", f"a-{string.ascii_lowercase[last - 1]}"
        return f"arrows, or {up}: +1, {down}: -1 of an action each, 0: nothing"
    count = min(action.size, len(NAMES))
    arrows = "arrows, or " if _arrows(spec) else ""
    return f"{arrows}{NAMES[0]}-{NAMES[count - 1]}: actions 0 to {count - 1}"
