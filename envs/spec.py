"""What an environment looks like from the outside.

Legend: N rows of one batch. Images are uint8 HWC, vectors float32 [D], categorical
observations int32 scalars or vectors with a known number of classes. Actions are one int32 class
index (discrete), one float32 vector in [-1, 1] (continuous), or several of these in one float32
vector; adapters rescale to the environment's own bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ObsSpec:
    """Shape and type of one observation key."""

    shape: tuple[int, ...]
    """Shape of one observation, without any batch axis; 3 axes mean an image [H, W, C]."""
    dtype: Literal["uint8", "float32", "int32"]
    """uint8 for images, float32 for vectors, int32 for categorical observations."""
    classes: int = 0
    """Number of classes of an int32 observation, 0 otherwise."""

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


@dataclass(frozen=True)
class ActionSpec:
    """The action of one environment."""

    kind: Literal["discrete", "continuous", "several"]
    """One class index, a vector in [-1, 1], or several of these side by side."""
    size: int
    """Number of classes (discrete), of dimensions (continuous), or of columns (several)."""
    parts: tuple[tuple[str, ActionSpec], ...] = ()
    """Of several: name and spec of each, none of them several itself."""

    @classmethod
    def several(cls, parts: Mapping[str, ActionSpec]) -> ActionSpec:
        """Join actions: one float32 vector holds all, a class index (exact) taking one column."""
        assert parts and all(part.kind != "several" for part in parts.values()), parts
        return cls("several", sum(part.columns for part in parts.values()), tuple(parts.items()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one stored action: () for discrete, [size] for all others."""
        return () if self.kind == "discrete" else (self.size,)

    @property
    def dtype(self) -> Literal["int32", "float32"]:
        return "int32" if self.kind == "discrete" else "float32"

    @property
    def columns(self) -> int:
        """Numbers of one stored action."""
        return 1 if self.kind == "discrete" else self.size

    @property
    def width(self) -> int:
        """Numbers that a world model reads of one action, classes being one-hot."""
        return sum(part.width for _, part in self.parts) if self.parts else self.size

    def slices(self) -> tuple[slice, ...]:
        """Columns of each part."""
        ends = list(accumulate(part.columns for _, part in self.parts))
        return tuple(slice(a, b) for a, b in zip([0, *ends], ends, strict=False))

    def sample(self, rows: int, rng: np.random.Generator) -> NDArray[Any]:
        """Draw uniform actions: [N, *shape]."""
        if self.kind == "discrete":
            return rng.integers(self.size, size=rows, dtype=np.int32)
        if self.kind == "continuous":
            return rng.uniform(-1, 1, (rows, self.size)).astype(np.float32)
        drawn = [part.sample(rows, rng).reshape(rows, -1) for _, part in self.parts]
        return np.concatenate(drawn, 1).astype(np.float32)


class Taken(NamedTuple):
    """What an observation key of an environment was taken for."""

    key: str
    """Its name there, as `--as` takes it."""
    words: str
    """What it was taken for."""
    chosen: bool = False
    """The user said so."""
    remark: str = ""
    """What may be wrong with that and how to mend it; mostly empty."""
    others: str = ""
    """What else `--as` can make of it, with bars between."""


@dataclass(frozen=True)
class EnvSpec:
    """Everything the agent needs to know about an environment."""

    suite: str
    """Name of the suite, such as atari."""
    task: str
    """Name of the task inside its suite, such as pong."""
    obs: Mapping[str, ObsSpec]
    """One entry per observation key; the order is the environment's."""
    action: ActionSpec
    frames_per_step: int = 1
    """Environment frames per agent step (the action repeat)."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)
    """Least and largest number of a vector, where the environment says so and can be believed."""
    log: tuple[str, ...] = ()
    """Names of values that are logged per episode and shown to nobody."""
    native: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The environment's own spaces, observation and action, as `space_json` has them; empty where
    it has none but those above."""
    taken: Mapping[str, Taken] = field(default_factory=dict, compare=False)
    """What each observation key was taken for, where that could be something else."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know of how the task was built, a line each."""


class StepBatch(NamedTuple):
    """Rows that environments have just delivered."""

    env_id: NDArray[np.int32]
    """[N] which environment each row belongs to."""
    obs: dict[str, NDArray[np.generic]]
    """{key: [N, *shape]}."""
    reward: NDArray[np.float32]
    """[N] reward that arrived with this observation; 0 where is_first."""
    is_first: NDArray[np.bool_]
    """[N] the observation starts an episode."""
    is_last: NDArray[np.bool_]
    """[N] the observation ends an episode; the next row of this environment is_first."""
    is_terminal: NDArray[np.bool_]
    """[N] the episode ended because of the task, not because of a time limit."""
    log: Mapping[str, NDArray[np.float64]] = MappingProxyType({})
    """{name: [N]} values of `EnvSpec.log`, which count from the start of the episode or longer."""
    executed: NDArray[Any] | None = None
    """[N, *] what was done since the rows before, where it was not what had been sent; of first
    rows it means nothing."""


RESERVED = frozenset(
    "action reward cont is_first is_last is_terminal env_id dyn rep actor critic replay_critic "  # noqa: SIM905
    "total deter stoch".split()
)
"""Names that rows, the replay and the losses use themselves."""
STAGES = 4
"""How often the networks of the presets halve an image."""


def check_observations(obs: Mapping[str, ObsSpec], stages: int = STAGES) -> None:
    """Raise ValueError if an observation cannot be encoded, whoever asks: a check or the agent."""
    if not obs:
        raise ValueError("the environment has no observation; at least one key is needed")
    images = {key: spec.shape[:2] for key, spec in obs.items() if spec.is_image}
    for key, spec in obs.items():
        if key in RESERVED:
            raise ValueError(f"observation key {key!r} is reserved; rename it")
        if len(spec.shape) > 3:
            raise ValueError(f"observation {key!r} has shape {spec.shape}; at most 3 axes work")
        if spec.is_image and spec.dtype != "uint8":
            raise ValueError(f"image {key!r} has type {spec.dtype}; images must be uint8")
        if not spec.is_image and spec.dtype != "float32" and spec.classes < 1:
            raise ValueError(f"observation {key!r} has type {spec.dtype} but no number of classes")
    for key, shape in images.items():
        if any(side % 2**stages or side < 2**stages for side in shape):
            halved = "" if stages == STAGES else f", which model.multipliers halves {stages} times"
            raise ValueError(
                f"image {key!r} has shape {obs[key].shape}; "
                f"height and width must be multiples of {2**stages}{halved}"
            )
    if len(set(images.values())) > 1:
        raise ValueError(f"images must have one resolution, these differ: {images}")
