"""Actions of an environment's own space that somebody else chose, as an agent would have decided.

A robot may have done something else than it was told: a safety layer or a human took over. This is
`actions` undone for one action; what nobody could have done is refused in words.

This module imports gymnasium; only modules that are themselves imported late may import it.

Legend: A dimensions, C columns of several actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamer_async.envs.native.actions import Placed, SeveralWriter, Tree, write_actions
from dreamer_async.envs.native.leaves import ActionWriter, ClassesWriter, TextWriter
from dreamer_async.envs.native.recorded import stored_actions
from dreamer_async.envs.values import BrokenRule

Array = NDArray[Any]
Space = gymnasium.Space[Any]


class ExecutedReader:
    """Reads actions that were done."""

    def __init__(self, space: Space) -> None:
        self._space, self._writer = space, write_actions(space)

    def read(self, action: Any) -> Array:
        """What an agent would have decided: int32 [], float32 [A] or [C]; BrokenRule if nothing."""
        try:
            if not isinstance(self._writer, SeveralWriter):
                return stored_actions(self._space, np.asarray(action)[None])[0]
            columns = np.zeros(self._writer.spec.columns, np.float32)
            _fill(columns, self._writer.tree, self._space, action)
        except (TypeError, ValueError) as error:
            raise BrokenRule(f"the action that was done: {error}") from None
        return columns


def _fill(columns: Array, tree: Tree, space: Any, action: Any) -> None:
    """Write the columns of a leaf, or of all leaves of a dictionary or tuple."""
    if isinstance(tree, Placed):
        columns[tree.place] = _decided(tree, space, action)
        return
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    there = list(action) if isinstance(action, Mapping) else list(range(len(action)))
    if isinstance(tree, dict) != isinstance(action, Mapping) or sorted(keys) != sorted(there):
        raise ValueError(f"it has {there}, not {keys}")
    for key in keys:
        _fill(columns, tree[key], space[key], action[key])


def _decided(placed: Placed, space: Any, action: Any) -> Array:
    """The columns of one leaf."""
    leaf = placed.leaf
    if isinstance(leaf, ActionWriter):
        return stored_actions(space, np.asarray(action)[None]).reshape(-1)
    if isinstance(leaf, ClassesWriter):
        return _classes(leaf, placed.name, np.asarray(action))
    if isinstance(leaf, TextWriter):
        return _letters(leaf, space, action)
    return np.zeros(0, np.float32)  # of one possible value


def _classes(leaf: ClassesWriter, name: str, action: Array) -> Array:
    if action.shape != leaf.first.shape or action.dtype.kind not in "iub":
        what = f"{action.dtype} {list(action.shape)}"
        raise ValueError(f"{name} is {what}, not whole numbers {list(leaf.first.shape)}".strip())
    classes = (action.astype(np.int64) - leaf.first.astype(np.int64)).reshape(-1)
    if ((classes < 0) | (classes >= leaf.sizes)).any():
        raise ValueError(f"{name} {action.tolist()} is outside its space".strip())
    return classes


def _letters(leaf: TextWriter, space: spaces.Text, action: Any) -> Array:
    if not space.contains(action):
        raise ValueError(f"{action!r:.40} is no text of its space")
    classes = leaf.letters.encode(action)
    classes[: leaf.letters.shortest] -= 1
    return classes
