"""What to ask envpool for; apart from the adapter, so that naming a task imports nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamer_async.envs.spec import ObsSpec
from dreamer_async.envs.view import PLAIN, View


class Reader(Protocol):
    """How to read one observation key from what an environment delivers."""

    @property
    def name(self) -> str:
        """Key on our side."""
        ...

    @property
    def spec(self) -> ObsSpec:
        """What comes out."""
        ...

    def read(self, obs: Any) -> Any:
        """Convert a batch: [N, *] as delivered to [N, *spec.shape]."""
        ...


@dataclass(frozen=True)
class PoolTask:
    """One task of envpool under one protocol."""

    suite: str
    """Our suite."""
    task: str
    """Our name of the task."""
    env_id: str
    """envpool's name of the task."""
    options: Mapping[str, int | float | bool | str] = field(default_factory=dict)
    """Options of that task; envpool does not check their values."""
    frames_per_step: int = 1
    """Environment frames per step (the action repeat)."""
    time_limit_is_terminal: bool = False
    """The protocol counts a time limit as the end of the task."""
    hidden: frozenset[str] = frozenset()
    """Observation keys of envpool that the protocol does not show."""
    drawn: bool = False
    """Its observations are drawn by MuJoCo."""
    view: View = PLAIN
    """What the user says about the task."""
    readers: Callable[[Any], tuple[Reader, ...]] | None = None
    """From envpool's observation space to readers, where the usual ones would not do."""
