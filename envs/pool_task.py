"""What to ask envpool for; apart from the adapter, so that naming a task imports nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from envs import names
from envs.spec import EnvSpec
from envs.suite import Options, Suite
from envs.vector import EnvError, VectorEnv


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


def describe(task: PoolTask) -> EnvSpec:
    """Describe a task without opening an environment."""
    _require_envpool()
    from envs import pool

    return pool.describe(task)


def open_pool(task: PoolTask, options: Options) -> VectorEnv:
    """Open environments of a task."""
    _require_envpool()
    from envs import pool

    return pool.PoolEnv(task, options)


def pool_suite(
    name: str,
    default_task: str,
    tasks: tuple[str, ...],
    spellings: Mapping[str, str],
    task: Callable[[str], PoolTask],
) -> Suite:
    """Make a suite of tasks that envpool serves; `task` maps canonical names."""
    return Suite(
        name=name,
        default_task=default_task,
        tasks=tasks,
        resolve=lambda given: names.find(f"{name} task", given, spellings),
        spec=lambda canonical: describe(task(canonical)),
        make=lambda canonical, options: open_pool(task(canonical), options),
    )


def _require_envpool() -> None:
    try:
        import envpool  # noqa: F401
    except ImportError as error:
        raise EnvError(f"this suite needs envpool (pip install envpool): {error}") from None
