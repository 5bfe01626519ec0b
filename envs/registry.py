"""The suites by name, and the functions of the package that look them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dreamer_async.envs import names, needs
from dreamer_async.envs.repeat import RepeatEnv, repeated
from dreamer_async.envs.spec import EnvSpec
from dreamer_async.envs.suite import Options, Suite
from dreamer_async.envs.suites import (
    atari,
    bsuite,
    classic,
    control,
    crafter,
    dmc,
    dmlab,
    gym,
    memory_maze,
    minecraft,
    minigrid,
    procgen,
    session,
    toy,
    vizdoom,
)
from dreamer_async.envs.vector import VectorEnv
from dreamer_async.envs.view import PLAIN, Choice, View

if TYPE_CHECKING:
    from dreamer_async.envs.native.translator import Translator

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        atari.ATARI,
        atari.ATARI100K,
        dmc.DMC_PROPRIO,
        dmc.DMC_VISION,
        procgen.SUITE,
        crafter.SUITE,
        dmlab.SUITE,
        minecraft.SUITE,
        bsuite.SUITE,
        memory_maze.SUITE,
        toy.SUITE,
        classic.SUITE,
        minigrid.SUITE,
        *control.SUITES,
        vizdoom.SUITE,
        gym.SUITE,
    )
}


def suites() -> tuple[str, ...]:
    """Names of all suites."""
    return tuple(SUITES)


def unknown(word: str, *, only_suites: bool = False) -> str:
    """Say that a word is neither a suite nor a task, and which ones it may have meant."""
    suites = names.nearest(word, {names.squash(name): name for name in SUITES})
    if only_suites:
        return names.describe("suite", word, suites, SUITES)
    close = gym.nearest(word)
    if not (close and gym.is_versioned(word)):
        close = [*(suites or _nearest_tasks(word)), *close[:2]]
    if close:
        return names.describe("suite or task", word, close, ())
    return (
        f"unknown suite or task {word!r}; `dreamer-async envs` lists the suites, "
        "and any Gymnasium id (case-sensitive) or module:factory works, too"
    )


def _nearest_tasks(word: str) -> list[str]:
    """SUITE/TASK of the tasks that have this name, else of the nearest."""
    wanted = names.squash(word)
    named = {f"{suite.name}/{task}": task for suite in SUITES.values() for task in suite.tasks}
    same = [whole for whole, task in named.items() if names.squash(task) == wanted]
    spellings: dict[str, str] = {}
    for whole, task in named.items():
        spellings.setdefault(names.squash(task), whole)
    return same or names.nearest(word, spellings)


def find_suite(suite: str) -> str:
    """Name of a suite as it is written; UnknownTask with the nearest matches if there is none."""
    return names.find("suite", suite, {names.squash(known): known for known in SUITES})


def tasks(suite: str) -> tuple[str, ...]:
    """Canonical names of the tasks of a suite; empty for a suite that takes any id."""
    return _suite(suite).tasks


def default_task(suite: str) -> str:
    """The task of a suite that is meant when none is named."""
    return _suite(suite).default_task


def resolve_task(suite: str, task: str) -> str:
    """Canonical name of a task; UnknownTask with the nearest matches if there is none."""
    return _suite(suite).resolve(task)


def about(suite: str) -> str:
    """What the tasks of a suite are and where they come from, in one line."""
    return _suite(suite).about


def needed(suite: str) -> tuple[str, ...]:
    """What a suite needs beyond this package, whether it is here or not."""
    return tuple(need.what for need in _suite(suite).needs)


def remark(suite: str, task: str) -> str:
    """What one task (canonical) needs besides, in a few words; empty for most."""
    return _suite(suite).remarks.get(task, "")


def summarize(suite: str, logs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Scores of a benchmark's own kind from the logged values of finished episodes."""
    scores = _suite(suite).summarize
    return {} if scores is None else scores(logs)


def has_scores(suite: str) -> bool:
    """Whether a benchmark scores logged values of its own kind."""
    return _suite(suite).summarize is not None


def scored_steps(suite: str) -> int:
    """Agent steps of a run whose episodes count in the benchmark's own scores; 0 if all do."""
    return _suite(suite).scored_steps


def missing(suite: str) -> tuple[str, ...]:
    """What a suite needs and this machine lacks, a line each that says how to install it."""
    found = _suite(suite)
    reasons = ((need.what, need.missing()) for need in found.needs)
    return tuple(f"{found.name} needs {what}: {reason}" for what, reason in reasons if reason)


def spec(suite: str, task: str, view: View = PLAIN) -> EnvSpec:
    """Describe a task without keeping an environment open; MissingNeed names what is lacking."""
    once = _ready(suite).spec(resolve_task(suite, task), replace(view, repeat=1))
    return repeated(once, view.repeat)


def spec_of(choice: Choice) -> EnvSpec:
    """Describe the task of a run, seen as its settings say."""
    return spec(choice.suite, choice.task, View.of(choice))


def native_spaces(spec: EnvSpec) -> tuple[Any, Any]:
    """The gymnasium spaces of what an environment itself delivers and takes."""
    from dreamer_async.envs.native import space_json

    return space_json.spaces_of(spec)


def changes(before: EnvSpec, now: EnvSpec) -> list[str]:
    """What an agent would see or decide otherwise in an environment than before, in words."""
    from dreamer_async.envs.native import changes

    return list(changes.changes(before, now))


def translator(spec: EnvSpec, view: View) -> Translator:
    """What reads observations and writes actions in the environment's own units, without it."""
    from dreamer_async.envs.native.translator import Translator

    return Translator.of(spec, view)


def make(
    suite: str,
    task: str,
    *,
    num_envs: int,
    batch_size: int = 0,
    seed: int,
    threads: int = 0,
    resize: str = "area",
    view: View = PLAIN,
    drawn: bool = False,
) -> VectorEnv:
    """Open environments; `batch_size` 0 means all of them at once, in lockstep.

    With `drawn` those that can draw themselves do so when asked.
    """
    options = Options(num_envs, batch_size or num_envs, seed, threads, resize, view, drawn)
    check_resize(suite, task, resize)
    open_task = partial(_ready(suite).make, resolve_task(suite, task))
    return open_task(options) if view.repeat == 1 else RepeatEnv(open_task, options)


def check_resize(suite: str, task: str, resize: str) -> None:
    """Raise ValueError unless the images of a task can be scaled in this way."""
    if resize == "area":
        return
    if resize != "exact":
        raise ValueError(f"resize is {resize!r}; there are area and exact")
    if resolve_task(suite, task) not in _suite(suite).exact_resize:
        raise ValueError(
            f"{suite} {task} cannot be resized exactly; "
            "the 57 games of Atari's benchmark can, whose screens are 210x160"
        )
    needs.require("--resize exact", (needs.of_extra("PIL", "pictures"),))


def _ready(name: str) -> Suite:
    """The suite, if everything that it needs is there."""
    suite = _suite(name)
    needs.require(suite.name, suite.needs)
    return suite


def _suite(name: str) -> Suite:
    """A suite that may be asked for, or the one of runs that a program of the user's began."""
    return session.SUITE if name == session.NAME else SUITES[find_suite(name)]
