"""What an environment looks like from the outside.

Legend: N rows of one batch. Images are uint8 HWC, vectors float32 [D], categorical
observations int32 scalars with a known number of classes. Actions are one int32 class index
(discrete) or one float32 vector in [-1, 1] (continuous); adapters rescale to the
environment's own bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

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

    kind: Literal["discrete", "continuous"]
    """One class index, or a vector in [-1, 1]."""
    size: int
    """Number of classes (discrete) or of dimensions (continuous)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one stored action: () for discrete, [size] for continuous."""
        return () if self.kind == "discrete" else (self.size,)

    @property
    def dtype(self) -> Literal["int32", "float32"]:
        return "int32" if self.kind == "discrete" else "float32"


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
