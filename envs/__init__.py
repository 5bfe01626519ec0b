"""Environments behind one interface: `send` and `recv` by environment id.

Importing this package imports neither envpool nor gymnasium; `make` and `spec` do when they need
them. The function `envs.spec` and the module of the types share a name: `from envs.spec import
EnvSpec` finds the module, `envs.spec(suite, task)` calls the function.
"""

from __future__ import annotations

from envs.names import UnknownTask
from envs.registry import default_task, make, resolve_task, spec, suites, tasks
from envs.spec import ActionSpec, EnvSpec, ObsSpec, StepBatch
from envs.vector import EnvError, VectorEnv

__all__ = [
    "ActionSpec",
    "EnvError",
    "EnvSpec",
    "ObsSpec",
    "StepBatch",
    "UnknownTask",
    "VectorEnv",
    "default_task",
    "make",
    "resolve_task",
    "spec",
    "suites",
    "tasks",
]
