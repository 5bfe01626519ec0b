"""`dreamer-async learn`: a run that learns from what was recorded, without an environment.

Heavy imports are inside the functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamer_async.cli.inputs import (
    as_overrides,
    as_view,
    configure,
    device_kind,
    initial_weights,
    name_again,
    unused_gpu,
    wanted_trackers,
)
from dreamer_async.cli.new_run import check_room, create_run
from dreamer_async.cli.options import (
    Compile,
    Device,
    EnvArgs,
    Init,
    InitParts,
    Kinds,
    Log,
    Name,
    Overrides,
    Plain,
    Precision,
    ReplayDir,
    RunsDir,
    Seed,
    Size,
    TaskAgain,
    Tensorboard,
    Threads,
)
from dreamer_async.cli.paths import existing_directory, runs_root
from dreamer_async.cli.train import start
from dreamer_async.config import Config, ConfigError, override, parse_overrides, resolve
from dreamer_async.store.run_dir import RunDir

if TYPE_CHECKING:
    from dreamer_async.replay.dataset import Dataset

ROOM = 2
"""Steps that there is room for, for each recorded one of a folder: a run can go on online."""


def learn(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FOLDER|minari:NAME",
            help="A run, a folder of .npz episodes, or a Minari dataset.",
        ),
    ],
    updates: Annotated[str, typer.Option("--updates", metavar="N", help="End after N updates.")],
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="SUITE", help="Where a folder's episodes come from."),
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option(
            "--actions",
            metavar="WHEN",
            help="A folder's action t came after observation t, or before it and led to it.",
        ),
    ] = None,
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    task: TaskAgain = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    compile_: Compile = None,
    init: Init = None,
    init_parts: InitParts = None,
    plain: Plain = False,
    runs_dir: RunsDir = "runs",
    replay_dir: ReplayDir = None,
    name: Name = None,
    log: Log = None,
    tensorboard: Tensorboard = False,
    overrides: Overrides = None,
) -> int:
    """Train on what was recorded, without environments: another run's replay, or episodes."""
    root = runs_root(runs_dir)
    flags = {
        "train.updates": updates,
        "train.seed": seed,
        "train.device": device,
        "train.precision": precision,
        "train.threads": threads,
        "train.compile": compile_,
        "replay.directory": None if replay_dir is None else existing_directory(replay_dir),
    }
    words = [*as_overrides(flags | initial_weights(root, init, init_parts)), *(overrides or [])]
    if not parse_overrides(words)["train.updates"]:
        raise ConfigError("--updates 0 leaves nothing to do; give at least 1")
    if (folder := _folder(root, source)) is None:
        for option, given in (("--env", env), ("--actions", actions), ("--as", kinds)):
            if given:
                raise ConfigError(f"{option} is for folders of episodes; a run knows it already")
        config = _of_run(RunDir.find(root, source), task, size, words)
    else:
        view = as_view(env_args, kinds)
        config = _of_folder(folder, env, actions, size, [*view, *words])
    trackers = wanted_trackers(log, tensorboard=tensorboard)
    many = _check(config)
    notes = [unused_gpu(config.train.device, device_kind(config.train.device))]
    notes.append(check_room(config, root))
    run, swept = create_run(root, name, config, trackers=trackers)
    learned = f"learning from {many:,} steps of {config.replay.source}, {config.size}"
    for line in filter(None, (*swept, *notes, learned)):
        print(line, flush=True)
    return start(run, plain=plain, resume=False)


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
    if (owner := run.owner()) is not None:
        raise ConfigError(
            f"{run.name} is in training (pid {owner.get('pid')}), and its replay changes; "
            f"`dreamer-async stop {run.name}` first"
        )
    ring, _ = run.replay_paths(old.replay.directory)
    if not ring.exists():
        raise ConfigError(f"{run.name} has no replay any more to learn from")
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
    folder: Path, env: str | None, actions: str | None, size: str | None, words: Sequence[str]
) -> Config:
    """The settings of a run that learns from a folder of episodes."""
    from dreamer_async.replay.dataset import dataset_of

    data = dataset_of(folder)
    when = data.actions(actions)
    if env is None:
        config = _without_env(data, size, words)
    else:
        free = [word for word in words if not word.startswith("train.updates=")]
        config = configure(env, None, size, {}, free).config
    given = parse_overrides(words)
    rows = data.rows(config.env.num_envs, config.train.batch_length)
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


def _check(config: Config) -> int:
    """Refuse what was recorded if it cannot be learned from; how many steps there are."""
    from dreamer_async import envs
    from dreamer_async.replay.recorded import check_length, open_source

    try:
        spec = envs.spec_of(config.env)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    with closing(open_source(config, spec)) as source:
        check_length(config, source)
        source.check()
        return sum(source.steps)
