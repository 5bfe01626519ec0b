"""Suites whose tasks are Python environments in worker processes.

What builds one returns an object like a gymnasium environment, which may also have
`frames_per_step`, and `log_names` with values for them in `info["log"]` after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dreamer_async.envs import names
from dreamer_async.envs.needs import Need
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.view import View

Summarize = Callable[[Sequence[Mapping[str, float]]], dict[str, float]]


def process_suite(
    name: str,
    default_task: str,
    tasks: tuple[str, ...],
    target: str,
    *,
    about: str,
    needs: tuple[Need, ...],
    spellings: Mapping[str, str] | None = None,
    summarize: Summarize | None = None,
    scored_steps: int = 0,
    remarks: Mapping[str, str] | None = None,
) -> Suite:
    """Make a suite whose workers call `target` (`module:attribute`) with the task's name."""
    known = {names.squash(task): task for task in tasks} | dict(spellings or {})

    def make(task: str, options: Options) -> VectorEnv:
        from dreamer_async.envs.processes import ProcessEnv, Source

        return ProcessEnv(Source(name, task, target, {"task": task}), options)

    def spec(task: str, view: View) -> EnvSpec:
        with make(task, Options(num_envs=1, batch_size=1, seed=0, view=view)) as env:
            return env.spec

    return Suite(
        name=name,
        default_task=default_task,
        tasks=tasks,
        resolve=lambda given: names.find(f"{name} task", given, known),
        spec=spec,
        make=make,
        about=about,
        needs=needs,
        summarize=summarize,
        scored_steps=scored_steps,
        remarks=remarks or {},
    )


def restore_numpy_aliases(*names: str) -> None:
    """Give numpy names back, such as int, that it dropped in 1.24 and old packages use."""
    import builtins

    import numpy as np

    for name in names:
        if not hasattr(np, name):
            setattr(np, name, getattr(builtins, name))


def first_seed(seed: int | None, random: Any) -> int:
    """The seed of the first episode if there is one, else one drawn from a numpy RandomState."""
    return int(random.randint(0, 2**31 - 1)) if seed is None else seed
