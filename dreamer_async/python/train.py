"""Starting a run from a program, as `dreamer-async train` and `dreamer-async learn` do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamer_async.cli.inputs import (
    FLAGS,
    as_settings,
    check_devices,
    check_restarts,
    configure,
    device_kind,
    initial_weights,
    try_spaces,
    unused_gpu,
    wanted_trackers,
)
from dreamer_async.cli.launch import start_trainer
from dreamer_async.cli.new_run import check_room, create_run
from dreamer_async.cli.words.learn import Episodes, wanted
from dreamer_async.cli.words.view import refuse_twice
from dreamer_async.config import SUITES, Config, ConfigError
from dreamer_async.config.arguments import checked, in_python
from dreamer_async.python.factory import allowed, named, refuse_in_worker
from dreamer_async.python.run import Run
from dreamer_async.python.settings import as_words, root_of


@checked
def train(
    suite: str | None = None,
    *,
    task: str | None = None,
    env: str | Callable[..., Any] | None = None,
    env_args: Mapping[str, Any] | None = None,
    steps: float | None = None,
    size: str | None = None,
    num_envs: int | None = None,
    seed: int | None = None,
    ratio: float | None = None,
    device: str | None = None,
    devices: int = 1,
    max_restarts: int = 0,
    precision: str | None = None,
    threads: int | None = None,
    sync: bool | None = None,
    compile: bool | None = None,
    resize: str | None = None,
    repeat: int | None = None,
    published: bool = False,
    init: str | Path | None = None,
    init_parts: str | None = None,
    log: Sequence[str] = (),
    name: str | None = None,
    runs_dir: str | Path | None = None,
    replay_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Start a run in a separate process and return at once; see docs/python.md.

    What to train on is a `suite` with its `task` ("atari", task="pong"), or `env`: a Gymnasium id,
    "module:factory", or a function or class at the top level of a module that builds one
    environment and gets `env_args` as its arguments. Other arguments are the flags of
    `dreamer-async train`, in the same units; `settings` are any others, {"optim.lr": 1e-4}.

    The run does not end with this program. Nothing is printed: the trainer's messages are in
    its log and its events. Raises ConfigError (a ValueError) for what is wrong, CheckpointError for
    weights of `init` that do not verify and EnvError for an environment that cannot be built, all
    of them before anything is created.
    """
    refuse_in_worker("dreamer_async.train")
    _check_ranks(devices, max_restarts)
    root, known = root_of(runs_dir), as_words(settings or {})
    with allowed():
        suite, task, args = _task(suite, task, env, env_args)
        flags = as_settings(
            steps=steps,
            num_envs=num_envs,
            seed=seed,
            ratio=ratio,
            device=device,
            precision=precision,
            threads=threads,
            sync=sync,
            compile=compile,
            resize=resize,
            repeat=repeat,
            replay_dir=replay_dir,
        )
        flags |= _weights(root, init, init_parts)
        view = as_words({FLAGS["env_args"]: args or None})
        refuse_twice(view, known)
        words = [*as_words(flags), *view, *known]
        config, kind, note = configure(suite, task, size, {}, words, published=published)
        trackers = wanted_trackers(list(log), tensorboard=False)
        try_spaces(config)
        check_devices(config, kind, devices)
        check_restarts(max_restarts, devices)
        return _start(config, root, name, note, trackers, devices=devices, restarts=max_restarts)


@checked
def learn(
    source: str | Path,
    *,
    updates: int,
    env: str | Callable[..., Any] | None = None,
    env_args: Mapping[str, Any] | None = None,
    actions: str | None = None,
    task: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    compile: bool | None = None,
    init: str | Path | None = None,
    init_parts: str | None = None,
    log: Sequence[str] = (),
    name: str | None = None,
    runs_dir: str | Path | None = None,
    replay_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Start a run that learns from recorded experience and return at once; see docs/python.md.

    `source` is another run, a folder of .npz episodes, or "minari:NAME". `env` says where a
    folder's episodes come from, as in `train` or as a suite and a task ("toy/catch"), and `actions`
    whether action t was chosen "after" observation t or "before" it. Other arguments are those of
    `dreamer-async learn`; `task` confirms the code of the other run's task.

    Raises ConfigError (a ValueError), with nothing created, for what cannot be learned from.
    """
    refuse_in_worker("dreamer_async.learn")
    root = root_of(runs_dir)
    flags = as_settings(
        updates=updates,
        seed=seed,
        device=device,
        precision=precision,
        threads=threads,
        compile=compile,
        replay_dir=replay_dir,
    )
    with allowed():
        flags |= _weights(root, init, init_parts)
        words = [*as_words(flags), *as_words(settings or {})]
        found = None if env is None else named(env)
        args = {**(found.args if found else {}), **(env_args or {})}
        view = as_words({FLAGS["env_args"]: args or None})
        said = Episodes(found.task if found else None, actions, view)
        config, _ = wanted(root, str(source), words, said=said, task=task, size=size)
        trackers = wanted_trackers(list(log), tensorboard=False)
        note = unused_gpu(config.train.device, device_kind(config.train.device))
        return _start(config, root, name, note, trackers)


def _check_ranks(devices: int, max_restarts: int) -> None:
    """Refuse numbers that the command line would not take."""
    if not 1 <= devices <= 1024:
        raise ConfigError(f"devices must be from 1 to 1024, got {devices}")
    if max_restarts < 0:
        raise ConfigError(f"max_restarts must be at least 0, got {max_restarts}")


def _weights(root: Path, init: str | Path | None, parts: str | None) -> dict[str, Any]:
    """Settings that say which weights a new run begins with."""
    return initial_weights(root, None if init is None else str(init), parts)


def _start(
    config: Config,
    root: Path,
    name: str | None,
    note: str,
    trackers: Sequence[str],
    *,
    devices: int = 1,
    restarts: int = 0,
) -> Run:
    notes = [note, check_room(config, root)]
    run, swept = create_run(root, name, config, trackers=trackers)
    trainer = start_trainer(run, resume=False, devices=devices, restarts=restarts)
    arguments = inspect.signature(train).parameters
    said = [in_python(text, arguments) for text in [*notes, *swept] if text]
    return Run(run, trainer, tuple(said))


def _task(
    suite: str | None,
    task: str | None,
    env: str | Callable[..., Any] | None,
    args: Mapping[str, Any] | None,
) -> tuple[str, str | None, Mapping[str, Any]]:
    """Suite, task and arguments that are meant; ConfigError where that is not clear."""
    if env is None:
        if suite is None:
            raise ConfigError("train needs a suite, such as 'atari', or env=: an id or a factory")
        return suite, task, dict(args or {})
    if task is not None or suite not in (None, "gym"):
        other = f"task={task!r}" if task is not None else repr(suite)
        raise ConfigError(f"give either env= or a suite and its task, not env= and {other}")
    found = named(env)
    if isinstance(env, str) and (of := env.partition("/"))[0] in SUITES:
        raise ConfigError(f"env={env!r} is a suite and a task: train({of[0]!r}, task={of[2]!r})")
    return "gym", found.task, {**found.args, **(args or {})}
