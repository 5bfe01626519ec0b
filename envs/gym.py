"""Any environment by its Gymnasium id: through envpool if it has the id, else in worker processes.

Ids are case-sensitive. Both libraries are imported when an id is looked up, not before.
"""

from __future__ import annotations

from envs import names
from envs.names import UnknownTask
from envs.pool_task import PoolTask, describe, open_pool
from envs.spec import EnvSpec
from envs.suite import Options, Suite
from envs.vector import VectorEnv


def resolve(task: str) -> str:
    """Return an id that envpool or gymnasium knows; UnknownTask with the nearest ones if none."""
    ids = (*_envpool_ids(), *_gymnasium_ids())
    if task in ids:
        return task
    spellings: dict[str, str] = {}
    for known in ids:
        spellings.setdefault(names.squash(known), known)
    close = names.nearest(task, spellings)
    raise UnknownTask(names.describe("gym id", task, close, ids) + " (ids are case-sensitive)")


def _envpool_ids() -> tuple[str, ...]:
    try:
        import envpool
    except ImportError:  # gymnasium alone is enough for its own environments
        return ()
    return tuple(envpool.list_all_envs())


def _gymnasium_ids() -> tuple[str, ...]:
    import gymnasium

    return tuple(gymnasium.registry)


def spec(task: str) -> EnvSpec:
    """Describe a task; one that envpool lacks is built in a worker for a moment."""
    if task in _envpool_ids():
        return describe(PoolTask("gym", task, task))
    with make(task, Options(num_envs=1, batch_size=1, seed=0)) as env:
        return env.spec


def make(task: str, options: Options) -> VectorEnv:
    """Open environments of a task."""
    if task in _envpool_ids():
        return open_pool(PoolTask("gym", task, task), options)
    from envs.processes import ProcessEnv, Source

    kwargs = {"id": task, "disable_env_checker": True}
    return ProcessEnv(Source("gym", task, "gymnasium:make", kwargs), options)


SUITE = Suite(
    name="gym",
    default_task="CartPole-v1",
    tasks=(),
    resolve=resolve,
    spec=spec,
    make=make,
)
