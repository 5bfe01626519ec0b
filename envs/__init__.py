"""Environments behind one interface: `send` and `recv` by environment id.

Importing this package imports neither envpool nor gymnasium; `make` and `spec` do when they need
them. The function `envs.spec` and the module of the types share a name:
`from dreamer_async.envs.spec import EnvSpec` finds the module, `envs.spec(suite, task)` calls the
function.
"""

from __future__ import annotations

from dreamer_async.envs.names import UnknownTask
from dreamer_async.envs.needs import MissingNeed
from dreamer_async.envs.registry import (
    about,
    changes,
    check_resize,
    default_task,
    find_suite,
    has_scores,
    make,
    missing,
    native_spaces,
    needed,
    remark,
    resolve_task,
    scored_steps,
    spec,
    spec_of,
    suites,
    summarize,
    tasks,
    translator,
    unknown,
)
from dreamer_async.envs.spec import ActionSpec, EnvSpec, ObsSpec, StepBatch
from dreamer_async.envs.suites.gym import allow_code, is_code
from dreamer_async.envs.vector import EnvError, VectorEnv
from dreamer_async.envs.view import View

__all__ = [
    "ActionSpec",
    "EnvError",
    "EnvSpec",
    "MissingNeed",
    "ObsSpec",
    "StepBatch",
    "UnknownTask",
    "VectorEnv",
    "View",
    "about",
    "allow_code",
    "changes",
    "check_resize",
    "default_task",
    "find_suite",
    "has_scores",
    "is_code",
    "make",
    "missing",
    "native_spaces",
    "needed",
    "remark",
    "resolve_task",
    "scored_steps",
    "spec",
    "spec_of",
    "suites",
    "summarize",
    "tasks",
    "translator",
    "unknown",
]
