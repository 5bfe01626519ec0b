"""The suites by name, and the functions of the package that look them up."""

from __future__ import annotations

from envs import atari, classic, gym, names, toy
from envs.spec import EnvSpec
from envs.suite import Options, Suite
from envs.vector import VectorEnv

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (atari.ATARI, atari.ATARI100K, toy.SUITE, classic.SUITE, gym.SUITE)
}


def suites() -> tuple[str, ...]:
    """Names of all suites."""
    return tuple(SUITES)


def tasks(suite: str) -> tuple[str, ...]:
    """Canonical names of the tasks of a suite; empty for a suite that takes any id."""
    return _suite(suite).tasks


def default_task(suite: str) -> str:
    """The task of a suite that is meant when none is named."""
    return _suite(suite).default_task


def resolve_task(suite: str, task: str) -> str:
    """Canonical name of a task; UnknownTask with the nearest matches if there is none."""
    return _suite(suite).resolve(task)


def spec(suite: str, task: str) -> EnvSpec:
    """Describe a task without keeping an environment open."""
    return _suite(suite).spec(resolve_task(suite, task))


def make(
    suite: str, task: str, *, num_envs: int, batch_size: int = 0, seed: int, threads: int = 0
) -> VectorEnv:
    """Open environments; `batch_size` 0 means all of them at once, in lockstep."""
    options = Options(num_envs, batch_size or num_envs, seed, threads)
    return _suite(suite).make(resolve_task(suite, task), options)


def _suite(name: str) -> Suite:
    return SUITES[names.find("suite", name, {names.squash(known): known for known in SUITES})]
