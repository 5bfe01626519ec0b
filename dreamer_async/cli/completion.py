"""What the shell offers to complete a word; heavy imports are inside, and torch in none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import typer

from dreamer_async.bench import ALONE, PARTS
from dreamer_async.config import SIZES, SUITES, ConfigError, known_settings

Items = list[str]


def suites(incomplete: str) -> Items:
    """Suites; behind a slash the tasks of one, and ids of gymnasium where no suite begins so."""
    suite, slash, task = incomplete.partition("/")
    if slash and suite in SUITES:
        return [f"{suite}/{name}" for name in _tasks(suite, task)]
    return _beginning(SUITES, incomplete) or _ids(incomplete)


def only_suites(incomplete: str) -> Items:
    """Suites and nothing else."""
    return _beginning(SUITES, incomplete)


def parts(incomplete: str) -> Items:
    """What `bench` measures."""
    return _beginning((*PARTS, *ALONE, "all"), incomplete)


def tasks(context: typer.Context, incomplete: str) -> Items:
    """Tasks of the suite that the words before name.

    They are parsed with an option at their end that has no value, after which arguments stay raw.
    """
    suite = context.params.get("suite") or next(iter(context.args), "")
    return _tasks(str(suite), incomplete)


def sizes(incomplete: str) -> Items:
    """Size presets."""
    return _beginning(SIZES, incomplete)


def settings(incomplete: str) -> Items:
    """Settings by their whole keys, and by their last part where that is enough."""
    ends = Counter(key.partition(".")[2] for key in known_settings())
    names = [*known_settings(), *(name for name, times in ends.items() if times == 1)]
    return [f"{name}=" for name in _beginning(names, incomplete)]


def runs(context: typer.Context, incomplete: str) -> Items:
    """Names of runs, newest first, and `last`."""
    from dreamer_async.cli.paths import runs_root
    from dreamer_async.store.run_dir import list_runs

    try:
        root = runs_root(str(context.params.get("runs_dir") or "runs"))
    except ConfigError:
        return []
    return _beginning(["last", *(run.name for run in list_runs(root))], incomplete)


def _tasks(suite: str, incomplete: str) -> Items:
    if suite not in SUITES:
        return []
    if suite == "gym":
        return _ids(incomplete)
    from dreamer_async import envs

    return _beginning(envs.tasks(suite), incomplete)


def _ids(incomplete: str) -> Items:
    """Ids that gymnasium itself knows; envpool's would take seconds."""
    if not incomplete:
        return []
    import gymnasium

    return _beginning(gymnasium.registry, incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> Items:
    return [word for word in words if word.startswith(incomplete)]
