"""Environments that a program names: an id, `module:factory`, or the factory itself.

A trainer is another process, which has to find a factory by its name. A function of a script can
be found, as long as importing the script does not start its runs again.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dreamer_async.config import ConfigError
from dreamer_async.config.schema import shown
from dreamer_async.envs.children import WORKER
from dreamer_async.envs.suites.gym import ALLOWED, SEARCH


class Named(NamedTuple):
    """An environment as another process can build it."""

    task: str
    """Task of the suite gym: an id, or `module:factory`."""
    args: Mapping[str, Any]
    """Keyword arguments of the factory."""


def named(env: str | Callable[..., Any]) -> Named:
    """Name an environment; ConfigError, with what would work, for what has no name elsewhere."""
    if isinstance(env, str):
        return Named(env, {})
    if isinstance(env, functools.partial):
        if env.args:
            raise ConfigError(f"env={env!r:.80}: its arguments must be given by their names")
        inner = named(env.func)
        return Named(inner.task, {**inner.args, **env.keywords})
    if not callable(env):
        raise ConfigError(
            "env: expected an id, 'module:factory', or a function or class that builds one "
            f"environment, got {shown(env)}"
        )
    return Named(f"{_module(env)}:{env.__qualname__}", {})


def _module(factory: Callable[..., Any]) -> str:
    """Name of the module from which another process can import a factory."""
    home, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    try:
        found = operator.attrgetter(name)(sys.modules[str(home)])
    except (AttributeError, KeyError):
        found = None
    if found != factory:
        called = name or type(factory).__name__
        raise ConfigError(
            f"env={called} has no name that the trainer, another process, could import: "
            "define it at the top of a module (functools.partial may give it arguments)"
        )
    return str(home) if home != "__main__" else _main_module(name)


def _main_module(name: str) -> str:
    """Name under which the running script can be imported."""
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):  # python -m
        return str(spec.name)
    stem = Path(getattr(main, "__file__", None) or "").stem
    if not stem.isidentifier():
        what = f"{stem}.py, whose name cannot be imported" if stem else "a notebook or a prompt"
        raise ConfigError(
            f"env={name} was defined in {what}, which the trainer, another process, cannot "
            f"import: put it into a file such as my_env.py and pass env='my_env:{name}'"
        )
    return stem


@contextmanager
def allowed() -> Iterator[None]:
    """Let the checks inside say which code may be imported, and trainers started inside have it.

    They look for it where this process does, after everywhere else.
    """
    before = {name: os.environ.get(name) for name in (ALLOWED, SEARCH)}
    folders = [os.path.abspath(folder) for folder in (*sys.path, "")]
    os.environ[SEARCH] = os.pathsep.join(dict.fromkeys(f for f in folders if os.path.isdir(f)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def refuse_in_worker(what: str) -> None:
    """Refuse to start a run from a script that is only imported to find its environment."""
    if WORKER in os.environ:
        from dreamer_async.envs.worker import NoEnvironment

        raise NoEnvironment(
            f"the module that has the environment calls {what} while it is imported: put that "
            "call under `if __name__ == '__main__':`"
        )
