"""What a suite is: its tasks, their spelling, and how to open one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dreamer_async.envs.needs import Need
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.view import PLAIN, View


@dataclass(frozen=True)
class Options:
    """How many environments to open and how to run them."""

    num_envs: int
    """Number of environments."""
    batch_size: int
    """Rows per recv, at most `num_envs`."""
    seed: int
    """Seed of every random number, 0 or larger."""
    threads: int = 0
    """Worker threads where environments run in threads; 0 leaves it to them."""
    resize: str = "area"
    """How Atari's images are scaled: area, or exact as in the official code."""
    view: View = PLAIN
    """What the user says about the task."""
    drawn: bool = False
    """Whether environments are asked for pictures of themselves (`VectorEnv.render`)."""

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}, but one environment is the least")
        if not 1 <= self.batch_size <= self.num_envs:
            raise ValueError(f"batch_size {self.batch_size} is outside 1 to {self.num_envs}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, but must not be negative")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}, but must not be negative")


@dataclass(frozen=True)
class Suite:
    """One family of tasks with one protocol."""

    name: str
    """Name on the command line."""
    default_task: str
    """The task that is meant when none is named."""
    tasks: tuple[str, ...]
    """Canonical task names; empty if the suite takes any id."""
    resolve: Callable[[str], str]
    """Canonical name of a task, or UnknownTask."""
    spec: Callable[[str, View], EnvSpec]
    """What a task (canonical) looks like, without keeping an environment open."""
    make: Callable[[str, Options], VectorEnv]
    """Open environments of a task (canonical)."""
    about: str = ""
    """What the tasks are and where they come from, in one line."""
    exact_resize: frozenset[str] = frozenset()
    """Tasks whose images can be scaled exactly as in the official code."""
    summarize: Callable[[Sequence[Mapping[str, float]]], dict[str, float]] | None = None
    """From the logged values of finished episodes to scores of the benchmark's own kind."""
    scored_steps: int = 0
    """Agent steps whose episodes count in these scores; 0: all."""
    needs: tuple[Need, ...] = ()
    """What must be installed."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """What some tasks (canonical) need besides, in a few words."""
