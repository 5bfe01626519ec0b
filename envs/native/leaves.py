"""How actions are handed to each kind of space that holds no others.

Legend: N rows of one batch, A dimensions of one vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dreamer_async.envs.observed.reader import Letters
from dreamer_async.envs.spec import ActionSpec

Array = NDArray[Any]

_LOW, _HIGH = np.array(-1, np.float32), np.array(1, np.float32)  # numpy is slow with numbers

FEW_PARTS = 3
"""Up to so many different things to decide are named one by one."""


@dataclass(frozen=True, eq=False)
class ActionWriter:
    """How to hand one class or one vector to an environment, as one array."""

    spec: ActionSpec
    """What comes in."""
    shape: tuple[int, ...]
    """Shape of one action on the environment's side."""
    dtype: np.dtype[Any]
    """Type on the environment's side."""
    low: Array
    """Lower bound of each dimension that is decided, or the first class."""
    high: Array
    """Upper bound of each dimension that is decided (continuous only)."""
    plain: bool = False
    """Bounds and shape are those of our own actions, so that there is nothing to convert."""
    free: NDArray[np.bool_] = field(default_factory=lambda: np.array(True))
    """Which dimensions are decided, where not all are: the others have one possible value."""
    fixed: Array = field(default_factory=lambda: np.array(0.0))
    """Value of each dimension, where not all are decided."""
    remark: str = ""
    """What is to be said of its bounds."""

    def one(self, action: Array) -> Any:
        """Convert one valid action, without a batch axis."""
        return self.row(self.write(action[None]), 0)

    def row(self, batch: Array, index: int) -> Any:
        """One action of a batch: a numpy number of a Discrete, an array of a Box."""
        return batch[index] if self.spec.kind == "discrete" else np.asarray(batch[index])

    def write(self, action: Array) -> Array:
        """Convert a valid batch: int32 [N] or float32 [N, A] to [N, *shape], always a copy."""
        if self.spec.kind == "discrete":
            return (action + self.low).astype(self.dtype)
        clipped = np.minimum(np.maximum(action, _LOW), _HIGH)
        if self.plain:
            return clipped.astype(self.dtype)
        scaled = self.low + (clipped.astype(np.float64) + 1) / 2 * (self.high - self.low)
        scaled = np.clip(scaled, self.low, self.high)
        if not self.free.all():
            scaled = self._with_fixed(scaled)
        if self.dtype.kind != "f":
            scaled = np.rint(scaled)
        return scaled.astype(self.dtype, copy=False).reshape(len(action), *self.shape)

    def _with_fixed(self, decided: Array) -> Array:
        """Put what is decided between what is not: [N, A] to [N, all dimensions]."""
        every = np.tile(self.fixed, (len(decided), 1))
        every[:, self.free] = decided
        return every

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {"": self.spec}

    def take(self, columns: Array) -> Array:
        """Convert columns of several actions: float32 [N, columns] to [N, *shape]."""
        return self.write(columns.astype(self.spec.dtype).reshape(-1, *self.spec.shape))

    def describe(self) -> str:
        if self.spec.kind == "discrete":
            return f"{self.dtype} {self.low} to {int(self.low) + self.spec.size - 1}"
        fixed = int(self.free.size - self.free.sum())
        others = f", {fixed} of them always the same" * bool(fixed)
        rounded = ", rounded" * (self.dtype.kind != "f")
        span = f"{_span(self.low, self.high, every=not fixed)}{rounded}"
        return f"{self.dtype} {list(self.shape)} {span}{others}{self.remark}"


class Leaf(Protocol):
    """How to hand its part of several actions to a space that holds no others."""

    @property
    def parts(self) -> Mapping[str, ActionSpec]:
        """What is decided, by names below that of the space; an empty one is the space's own."""
        ...

    def take(self, columns: Array) -> Any:
        """Convert the columns of its parts, float32 [N, columns], to a batch."""
        ...

    def row(self, batch: Any, index: int) -> Any:
        """One action of such a batch."""
        ...

    def describe(self) -> str:
        """What the environment gets, in words."""
        ...


@dataclass(frozen=True, eq=False)
class ClassesWriter:
    """How to hand several classes to an environment, as one array."""

    sizes: list[int]
    """Number of classes of each element."""
    first: Array
    """First class of each element, [*shape], in the environment's numbers and type."""
    remark: str = ""
    """What is to be said of its bounds."""

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {str(i): ActionSpec("discrete", size) for i, size in enumerate(self.sizes)}

    def take(self, columns: Array) -> Array:
        """[N, elements] to [N, *shape]."""
        classes = columns.astype(np.int64).reshape(len(columns), *self.first.shape)
        return classes.astype(self.first.dtype) + self.first  # modulo the type's size, so never out

    def row(self, batch: Array, index: int) -> Array:
        return np.asarray(batch[index])

    def describe(self) -> str:
        first = self.first.reshape(-1).astype(object)
        span = _span(first, first + np.array(self.sizes) - 1)
        return f"{self.first.dtype} {list(self.first.shape)} {span}{self.remark}"


@dataclass(frozen=True, eq=False)
class TextWriter:
    """How to hand a text to an environment: one class per character, and 0 for its end.

    Characters that no text lacks cannot be its end, so that they have one class less.
    """

    letters: Letters

    @property
    def parts(self) -> dict[str, ActionSpec]:
        shortest, size = self.letters.shortest, len(self.letters.alphabet)
        sizes = [size + (i >= shortest) for i in range(self.letters.longest)]
        return {str(i): ActionSpec("discrete", size) for i, size in enumerate(sizes)}

    def take(self, columns: Array) -> list[str]:
        """[N, longest] to N texts."""
        classes = columns.astype(np.int64)
        classes[:, : self.letters.shortest] += 1
        return [self.letters.decode(row) for row in classes.tolist()]

    def row(self, batch: list[str], index: int) -> str:
        return batch[index]

    def describe(self) -> str:
        letters = self.letters
        return (
            f"a text of {letters.shortest} to {letters.longest} characters out of "
            f"{len(letters.alphabet)}"
        )


@dataclass(frozen=True, eq=False)
class FixedWriter:
    """What an environment gets where its space has one possible value."""

    value: Array

    @property
    def parts(self) -> dict[str, ActionSpec]:
        return {}

    def take(self, columns: Array) -> Array:
        return np.repeat(self.value[None], len(columns), 0)

    def row(self, batch: Array, index: int) -> Array:
        return np.asarray(batch[index])

    def describe(self) -> str:
        return f"{self.value.dtype} {list(self.value.shape)} of one possible value"


def _span(low: Array, high: Array, *, every: bool = True) -> str:
    """Bounds of numbers in words, of `every` one where they differ and are few."""
    same = (low == low[0]).all() and (high == high[0]).all()
    if every and not same and low.size <= FEW_PARTS:
        return "from " + ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
    return f"from {low.min():g} to {high.max():g}" + ", each its own" * (not same)
