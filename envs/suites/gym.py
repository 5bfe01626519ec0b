"""Any environment by its Gymnasium id, or by the name of what builds it.

* An id that envpool has is served by envpool, another one that gymnasium knows by worker processes.
  So is one of both whose arguments (`--env-arg`) envpool's environment does not have.
* `module:factory` names something that returns a gymnasium environment, and `module:Name-v0` an id
  that importing the module registers. Both import code, so whoever runs it must say so: they are
  refused unless the same name was given to `allow_code`, which nothing but a command line does, a
  call of `dreamer_async.train`, and the argument `task` of `load` and `evaluate`. A run directory
  from elsewhere can therefore not choose what is imported.

Ids are case-sensitive. Both libraries are imported when an id is looked up, not before.
"""

from __future__ import annotations

import importlib.util
import os
import re

from dreamer_async.envs import names, needs
from dreamer_async.envs.names import UnknownTask
from dreamer_async.envs.pool_suite import describe, open_pool
from dreamer_async.envs.pool_task import PoolTask
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.view import View

ALLOWED = "DREAMER_ENV_CODE"
"""Environment variable with the one name that may be imported; processes that we start have it."""
SEARCH = "DREAMER_ENV_PATH"
"""Environment variable with the folders in which code is looked for, in place of the current one;
like the other, nothing but whoever starts a run sets it."""

_CODE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[\w./-]+)")


def is_code(task: str) -> bool:
    """Tell whether a task is `module:factory` or `module:Name-v0`, which import a module."""
    return _CODE.fullmatch(task) is not None


def is_versioned(task: str) -> bool:
    """Tell whether a name ends as ids do: CartPole-v1."""
    return re.search(r"-v\d+$", task) is not None


def allow_code(task: str) -> None:
    """Say, for this process and those it starts, that the user wants this name imported."""
    os.environ[ALLOWED] = task


def resolve(task: str) -> str:
    """Return an id that can be built; UnknownTask with the nearest ones if there is none."""
    if code := _CODE.fullmatch(task):
        _check_code(task, code["module"])
        return task
    ids = _ids()
    if task in ids:
        return task
    said = names.describe("gym id", task, nearest(task), ids)
    raise UnknownTask(f"{said} (ids are case-sensitive)")


def nearest(task: str) -> list[str]:
    """Ids whose spelling is close to a name, the closest first."""
    spellings: dict[str, str] = {}
    for known in _ids():
        spellings.setdefault(names.squash(known), known)
    return names.nearest(task, spellings)


def _ids() -> tuple[str, ...]:
    return (*_envpool_ids(), *_gymnasium_ids())


def _check_code(task: str, module: str) -> None:
    """Raise UnknownTask unless the name was allowed and its package can be found."""
    if os.environ.get(ALLOWED) != task:
        raise UnknownTask(
            f"{task!r} is code that would be imported, so it must be named again on the command "
            f"line: --task {task} (in Python: task={task!r})"
        )
    package = module.partition(".")[0]
    places = [os.path.join(folder, package) for folder in search_path()]
    here = any(os.path.exists(place) or os.path.exists(f"{place}.py") for place in places)
    if not here and not _installed(package):
        raise UnknownTask(
            f"there is no module {package!r} for {task!r}, neither installed nor in {os.getcwd()}; "
            f"a task of a suite is written SUITE/TASK"
        )


def _installed(package: str) -> bool:
    """Whether workers, too, will find a package; they do not have the script that runs."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # __main__
        return False


def search_path() -> tuple[str, ...]:
    """Folders in which code of the user's is looked for, after everywhere else."""
    return tuple(filter(None, os.environ.get(SEARCH, os.getcwd()).split(os.pathsep)))


def _envpool_ids() -> tuple[str, ...]:
    try:
        return tuple(needs.import_envpool().list_all_envs())
    except needs.MissingNeed:  # gymnasium alone is enough for its own environments
        return ()


def _gymnasium_ids() -> tuple[str, ...]:
    import gymnasium

    return tuple(gymnasium.registry)


def spec(task: str, view: View) -> EnvSpec:
    """Describe a task; one that envpool lacks is built in a worker for a moment."""
    if _by_envpool(task, view):
        return describe(PoolTask("gym", task, task, view=view))
    with make(task, Options(num_envs=1, batch_size=1, seed=0, view=view)) as env:
        return env.spec


def make(task: str, options: Options) -> VectorEnv:
    """Open environments of a task."""
    if _by_envpool(task, options.view):
        return open_pool(PoolTask("gym", task, task), options)
    from dreamer_async.envs.processes import ProcessEnv, Source

    code = _CODE.fullmatch(task)
    if code and code["attribute"].replace(".", "_").isidentifier():
        return ProcessEnv(Source("gym", task, task, search=search_path()), options)
    kwargs = {"id": task, "disable_env_checker": True}
    remark = "" if code else _why_not_envpool(task, options.view)
    search = search_path() if code else ()
    source = Source("gym", task, "gymnasium:make", kwargs, search, remark)
    return ProcessEnv(source, options)


def _by_envpool(task: str, view: View) -> bool:
    """Tell whether envpool serves a task with these arguments."""
    if is_code(task) or task not in _envpool_ids():
        return False
    return not _lacking(task, view) or task not in _gymnasium_ids()


def _lacking(task: str, view: View) -> list[str]:
    """Arguments that envpool's environment of this id does not have."""
    if not view.args:
        return []
    from dreamer_async.envs import pool

    return sorted(view.args.keys() - pool.defaults_of(task).keys())


def _why_not_envpool(task: str, view: View) -> str:
    if task not in _envpool_ids():
        return ""
    lacking = " and no ".join(_lacking(task, view))
    return f"{task} is gymnasium's, in worker processes: envpool's has no argument {lacking}"


SUITE = Suite(
    name="gym",
    default_task="CartPole-v1",
    tasks=(),
    resolve=resolve,
    spec=spec,
    make=make,
    about="any gymnasium id: by envpool if it has the id, else in worker processes",
)
