"""What the words of `learn` mean: the settings of a run that learns from what was recorded.

Heavy imports are inside the functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dreamer_async.cli.inputs import configure, device_kind, name_again, readable
from dreamer_async.cli.words.view import OPTIONS, refuse_twice
from dreamer_async.config import Config, ConfigError, override, parse_overrides, resolve
from dreamer_async.store.run_dir import RunDir

if TYPE_CHECKING:
    from dreamer_async.replay.dataset import Dataset

ROOM = 2
"""Steps that there is room for, for each recorded one of a folder: a run can go on online."""
WORDS = {
    "replay.source": "what is learned from is said without -s: `learn SOURCE`",
    "replay.source_actions": "--actions says that",
    "env.batch_size": "it counts with environments only: give it to `resume --online`",
}
"""Settings that `learn` does not take, and why."""
RECORDED = ("env.args", "env.kinds", "env.image", "env.repeat", "env.resize")
"""Settings by which another run has recorded its steps."""


class Episodes(NamedTuple):
    """What may be said of a folder of episodes, or of a dataset, beside its name."""

    env: str | None = None
    """Suite, id or factory that its episodes come from."""
    actions: str | None = None
    """after or before."""
    view: Sequence[str] = ()
    """Settings of the environment's arguments and of what its keys are."""


def wanted(
    root: Path,
    source: str,
    words: Sequence[str],
    *,
    said: Episodes,
    task: str | None = None,
    size: str | None = None,
) -> tuple[Config, int]:
    """The settings of the new run and how many steps it learns from; ConfigError, with nothing
    created, for what cannot be learned from.

    `words` are settings, train.updates among them.
    """
    given = parse_overrides(words)
    if not given["train.updates"]:
        raise ConfigError("--updates 0 leaves nothing to do; give at least 1")
    for key in given.keys() & WORDS.keys():
        raise ConfigError(f"{key} cannot be set: {WORDS[key]}")
    refuse_twice(said.view, words)
    if (folder := _folder(root, source)) is None:
        _refuse(said)
        config = _of_run(RunDir.find(root, source), task, size, words)
    else:
        config = _of_folder(folder, said, task, size, [*said.view, *words])
    return config, check_source(config)


def _refuse(said: Episodes) -> None:
    given = {"--env": said.env, "--actions": said.actions}
    given |= {OPTIONS[word.partition("=")[0]]: word for word in said.view}
    if option := next((name for name, value in given.items() if value), None):
        raise ConfigError(f"{option} is for folders of episodes; a run knows it already")


def _folder(root: Path, source: str) -> Path | None:
    """The folder of episodes that a word means; None if it means a run."""
    from dreamer_async.replay import minari_dataset

    if source.startswith(minari_dataset.PREFIX):
        return minari_dataset.located(source.removeprefix(minari_dataset.PREFIX))
    if source == "last" or "\0" in source or RunDir(root / source).exists():
        return None
    path = Path(source)
    return path.absolute() if path.is_dir() and not RunDir(path).exists() else None


def _of_run(run: RunDir, task: str | None, size: str | None, words: Sequence[str]) -> Config:
    """The settings of a run, to learn from its replay."""
    from dreamer_async.replay.ring import stored_file_spec
    from dreamer_async.store.summary import load_config

    old = load_config(run)
    name_again(old.env, task)
    for key in (key for key in RECORDED if key in parse_overrides(words)):
        raise ConfigError(f"{key} cannot be set: {run.name} has recorded its steps in its own way")
    if (owner := run.owner()) is not None:
        raise ConfigError(
            f"{run.name} is in training (pid {owner.get('pid')}), and its replay changes; "
            f"`dreamer-async stop {run.name}` first"
        )
    ring, _ = run.replay_paths(old.replay.directory)
    if not ring.exists():
        raise ConfigError(f"{run.name} has no replay to learn from any more")
    there = stored_file_spec(ring)
    if size is not None:
        sized = resolve(old.env.suite, old.env.task, size=size)
        old = replace(old, size=sized.size, model=sized.model)
    new = replace(
        old,
        train=replace(old.train, init="", init_parts="all"),
        replay=replace(
            old.replay,
            capacity=there.num_envs * there.capacity,
            capacity_gb=0.0,
            directory="",
            source=str(run.path),
            source_actions="after",
        ),
    )
    return _bounded(new, words)


def _bounded(config: Config, words: Sequence[str]) -> Config:
    """Apply what was asked for; a size of the replay that was asked for replaces ours."""
    if "replay.capacity_gb" in parse_overrides(words):
        config = replace(config, replay=replace(config.replay, capacity=0))
    return override(config, words)


def _of_folder(
    folder: Path, said: Episodes, task: str | None, size: str | None, words: Sequence[str]
) -> Config:
    """The settings of a run that learns from a folder of episodes."""
    from dreamer_async.replay.dataset import dataset_of

    given = parse_overrides(words)
    if said.env is None:
        for option in ["--task"] * (task is not None) + ["--env-arg"] * ("env.args" in given):
            raise ConfigError(f"{option} needs --env SUITE: without it there are only arrays")
    data = dataset_of(folder)
    when = data.actions(said.actions)
    if said.env is None:
        config = _without_env(data, size, words)
    else:
        free = [word for word in words if "train.updates" not in parse_overrides([word])]
        config = configure(said.env, task, size, {}, free).config
    rows = data.rows(config.env.num_envs, config.train.batch_length)
    if rows < given.get("env.num_envs", rows):
        raise ConfigError(f"env.num_envs cannot be more than {rows}, among which {folder} divides")
    replay: dict[str, Any] = {"source": str(folder), "source_actions": when}
    if not {"replay.capacity", "replay.capacity_gb"} & given.keys():
        replay["capacity"] = rows * max(ROOM * data.steps // rows, data.longest(rows))
    return replace(
        config,
        env=replace(config.env, num_envs=rows, batch_size=0),
        train=replace(config.train, updates=given["train.updates"]),
        replay=replace(config.replay, **replay),
    )


def _without_env(data: Dataset, size: str | None, words: Sequence[str]) -> Config:
    """Spaces are those of the data; whoever goes on is a session with the same spaces."""
    from dreamer_async.envs.suites import session

    label = re.sub(r"[^A-Za-z0-9._-]+", "-", data.label).strip("-.") or "recorded"
    asked = resolve(session.NAME, label, size=size, overrides=words).train.device
    kind = device_kind(asked)
    config = resolve(session.NAME, label, size=size, overrides=words, device=kind)
    args, kinds = data.spaces(config.env.kinds)
    return replace(config, env=replace(config.env, args=args, kinds=kinds))


def check_source(config: Config) -> int:
    """Refuse what was recorded if it cannot be learned from; how many steps there are."""
    from dreamer_async.replay.recorded import check_length, open_source

    spec = readable(config)
    with closing(open_source(config, spec)) as source:
        check_length(config, source)
        source.check()
        return sum(source.steps)
