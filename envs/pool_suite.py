"""Suites whose tasks envpool serves; it is imported when one of them is opened or described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dreamer_async.envs import names, needs
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.vector import VectorEnv


def describe(task: PoolTask) -> EnvSpec:
    """Describe a task without opening an environment."""
    from dreamer_async.envs import pool

    return pool.describe(task)


def open_pool(task: PoolTask, options: Options) -> VectorEnv:
    """Open environments of a task."""
    from dreamer_async.envs import pool

    return pool.PoolEnv(replace(task, view=options.view), options)


def pool_suite(
    name: str,
    default_task: str,
    tasks: tuple[str, ...],
    spellings: Mapping[str, str],
    task: Callable[[str], PoolTask],
    *,
    about: str,
    needed: tuple[needs.Need, ...] = (),
) -> Suite:
    """Make a suite of tasks that envpool serves; `task` maps canonical names."""
    return Suite(
        name=name,
        default_task=default_task,
        tasks=tasks,
        resolve=lambda given: names.find(f"{name} task", given, spellings),
        spec=lambda canonical, view: describe(replace(task(canonical), view=view)),
        make=lambda canonical, options: open_pool(task(canonical), options),
        about=f"{about} (envpool)",
        needs=(needs.ENVPOOL, *needed),
    )
