"""Which sweep the words of a command ask for: a new one, a larger one, or one to go on with."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dreamer_async import envs
from dreamer_async.cli.inputs import configure
from dreamer_async.cli.words.task import find_task
from dreamer_async.config import SUITES, ConfigError, resolve
from dreamer_async.config.schema import nearest, shown
from dreamer_async.store.run_dir import RUN_NAME
from dreamer_async.store.sweep_dir import LONGEST_NAME, VERSION, Sweep, SweepDir
from dreamer_async.sweep import grid
from dreamer_async.sweep.grid import Grid
from dreamer_async.sweep.ranges import is_range, parse_range
from dreamer_async.sweep.search import typical
from dreamer_async.sweep.work import config_of


@dataclass(frozen=True)
class Words:
    """What a command line says of a grid; None where it says nothing."""

    task: str | None = None
    size: str | None = None
    seeds: str | None = None
    settings: tuple[str, ...] = ()
    """`key=value`, with all values of each."""

    @property
    def given(self) -> bool:
        """Whether there is anything besides tasks, which may have to be named again."""
        return any(each not in (None, ()) for each in (self.size, self.seeds, self.settings))


def wanted(
    root: Path, what: str, words: Words, name: str | None, search: int | None, *, remote: str
) -> tuple[SweepDir, Sweep]:
    """The sweep and what is to be run in it; ConfigError with nothing created.

    `remote` is the kind of device of the machines that train, empty if it is this one.
    """
    found = None if what in SUITES or what.endswith(".toml") else SweepDir.find(root, what)
    if found is not None:
        return found, _known(found, words, name, search)
    words = replace(words, settings=_each_once(map(_whole, words.settings)))
    if what.endswith(".toml"):
        words, what = _from_file(Path(what), words)
    what = _suite(root, what)
    directory = SweepDir(root / _name(f"sweep-{what}" if name is None else name))
    sweep = _search(what, words, search, remote) if search else _grid(what, words, remote)
    for job in sweep.jobs or [typical(sweep)]:
        config_of(sweep, job)  # says what is wrong with it
    if directory.exists():
        return directory, _larger(directory, sweep)
    if directory.path.exists() and {*os.listdir(directory.path)} - {"lock"}:
        raise ConfigError(f"{directory.path} is no sweep: choose another --name")
    return directory, sweep


def _suite(root: Path, what: str) -> str:
    """The suite that a word names which is no sweep, spelled as one likes; ConfigError."""
    if "/" not in what:
        with contextlib.suppress(envs.UnknownTask):
            return envs.find_suite(what)
    raise ConfigError(_no_suite(root, what))


def _no_suite(root: Path, what: str) -> str:
    """What is wrong with a word that is neither suite nor sweep, such as one that names a task."""
    try:
        suite, task = find_task(what)
    except ConfigError:
        near = nearest(what, SUITES)
        return (
            f"{shown(what)} is neither a suite{near} nor a sweep in {root}; "
            "the name of a file ends in .toml"
        )
    words = f"dreamer-async sweep {suite} --task {task}"
    return f"{shown(what)} is neither a suite nor a sweep in {root}; did you mean `{words}`?"


def _name(text: str) -> str:
    if not RUN_NAME.fullmatch(text) or len(text) > LONGEST_NAME or text in (*SUITES, "last"):
        raise ConfigError(
            f"--name {shown(text)}: use letters, digits, . _ and -, and not the name of a suite"
        )
    return text


def _known(found: SweepDir, words: Words, name: str | None, search: int | None) -> Sweep:
    """A sweep that is called by its name goes on as it was begun."""
    if words.given or name or search:
        raise ConfigError(
            f"{found.name} is a sweep and has its settings: to change it, give the suite again"
        )
    sweep = found.read()
    tasks = {job.task for job in sweep.jobs or [typical(sweep)]}
    if words.task is not None:  # code has to be named by whoever wants it to be run
        names = grid.parse_names(words.task, "--task")
        foreign = any(envs.is_code(name) and name not in tasks for name in names)
        if foreign or {find_task(sweep.suite, name)[1] for name in names} != tasks:
            raise ConfigError(f"the tasks of {found.name} are {', '.join(sorted(tasks))}")
    for task in tasks:
        _check_task(sweep.suite, task)
    return sweep


def _check_task(suite: str, task: str) -> None:
    if suite not in SUITES:
        raise ConfigError(f"unknown suite {shown(suite)}")
    try:
        envs.resolve_task(suite, task)
    except envs.UnknownTask as error:
        raise ConfigError(str(error)) from None


def _from_file(path: Path, words: Words) -> tuple[Words, str]:
    """What a TOML file says, and the command line says otherwise; the suite."""
    data = grid.from_file(path)
    own = grid.parse_settings(words.settings)
    settings = data["settings"] | own
    texts = tuple(f"{key}={';'.join(values)}" for key, values in settings.items())
    return (
        Words(
            task=words.task or data.get("task"),
            size=words.size or data.get("size"),
            seeds=data.get("seeds") if words.seeds is None else words.seeds,
            settings=texts,
        ),
        data["suite"],
    )


def _whole(text: str) -> str:
    """`optim.lr=1e-4` for `lr=1e-4`, so that nobody after this meets a key in two spellings."""
    return "=".join(grid.parse_key(text))


def _each_once(settings: Iterable[str]) -> tuple[str, ...]:
    """The settings; ConfigError for a key that is there twice, of which one would be lost."""
    settings = tuple(settings)
    counts = Counter(text.partition("=")[0] for text in settings)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ConfigError(f"{twice[0]} is given twice: give all its values at once, with commas")
    return settings


# -- new ones --------------------------------------------------------------------------------


def _grid(suite: str, words: Words, remote: str) -> Sweep:
    if wrong := [text for text in words.settings if _has_range(text)]:
        raise ConfigError(f"{shown(wrong[0])} is a range: --search N chooses from it")
    made = _parsed(suite, words, remote)
    jobs = tuple(made.jobs())
    settings = _with_machine(made, remote)
    return Sweep(VERSION, suite, settings, jobs)


def _parsed(suite: str, words: Words, remote: str) -> Grid:
    names = [None] if words.task is None else grid.parse_names(words.task, "--task")
    tasks = tuple(dict.fromkeys(find_task(suite, name)[1] for name in names))
    settings = grid.parse_settings(words.settings)
    first = [f"{key}={values[0]}" for key, values in settings.items()]
    sizes = () if words.size is None else grid.parse_names(words.size, "--size")
    if not sizes and remote:
        sizes = (resolve(suite, tasks[0], overrides=first, device=remote).size,)
    elif not sizes:
        sizes = (configure(suite, tasks[0], None, {}, first).config.size,)
    seeds = grid.parse_seeds("1" if words.seeds is None else words.seeds)
    return Grid(suite, tasks, sizes, seeds, settings)


def _with_machine(made: Grid, remote: str) -> tuple[str, ...]:
    """Settings of all runs, with what this machine cannot do; a remote one is not here to ask."""
    if remote:
        return made.fixed
    first = [f"{key}={values[0]}" for key, values in made.settings.items()]
    asked = configure(made.suite, made.tasks[0], made.sizes[0], {}, first)
    plain = resolve(made.suite, made.tasks[0], size=made.sizes[0], overrides=first)
    eager = plain.train.compile and not asked.config.train.compile
    return (*made.fixed, *(["train.compile=false"] if eager else []))


def _search(suite: str, words: Words, trials: int, remote: str) -> Sweep:
    """A search: its runs are made one by one, as it asks for them."""
    several = [text for text in words.settings if _has_range(text) or _is_choice(text)]
    rest = tuple(text for text in words.settings if text not in several)
    searched = {key: value.strip() for key, value in map(grid.parse_key, several)}
    if not searched:
        raise ConfigError("--search needs a range, such as -s optim.lr=1e-5..1e-3:log")
    for key, text in searched.items():
        parse_range(key, text)
    made = _parsed(suite, replace(words, settings=rest), remote)
    runs = made.jobs()
    if len(runs) > 1:
        raise ConfigError("a search is of one task, one size and one seed")
    fixed = {"size": runs[0].size, "task": runs[0].task, "seed": str(runs[0].seed)}
    settings = _with_machine(made, remote)
    return Sweep(VERSION, suite, settings, (), search=fixed | searched, trials=trials)


def _has_range(text: str) -> bool:
    """Whether a setting is given as a range; mappings may have two dots in their texts."""
    key, value = grid.parse_key(text)
    return is_range(value) and not grid.has_commas(key)


def _is_choice(text: str) -> bool:
    """Whether a setting has several values."""
    key, value = grid.parse_key(text)
    return ";" in value or ("," in value and not grid.has_commas(key))


# -- those there are -------------------------------------------------------------------------


def _larger(directory: SweepDir, sweep: Sweep) -> Sweep:
    """What there is together with what is asked for now, which may be more, but nothing else."""
    old = directory.read()
    same = (old.suite, old.settings, old.search) == (sweep.suite, sweep.settings, sweep.search)
    known = {job.name: job for job in old.jobs}
    new = {job.name: job for job in sweep.jobs}
    kept = {name: replace(job, pruned=False, batch_id="") for name, job in known.items()}
    lost = [] if sweep.search else [name for name, job in kept.items() if new.get(name) != job]
    if not same or lost:
        which = f" ({lost[0]} is not in it)" if lost and same else ""
        raise ConfigError(
            f"{directory.name} was begun with other settings{which}: give the same, or more "
            "tasks, values and seeds, or another --name"
        )
    jobs = tuple(known.get(job.name, job) for job in sweep.jobs) or old.jobs
    if sweep.trials < old.trials:
        raise ConfigError(
            f"{directory.name} has {old.trials} runs: --search takes as many, or a larger number"
        )
    trials = sweep.trials
    return replace(sweep, jobs=jobs, trials=trials, devices=old.devices)
