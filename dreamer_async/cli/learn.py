"""`dreamer-async learn`: a run that learns from what was recorded, without an environment."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamer_async.cli.inputs import (
    as_overrides,
    as_settings,
    device_kind,
    initial_weights,
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
    Tensorboard,
    Threads,
)
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.train import start
from dreamer_async.cli.words.learn import Episodes, wanted
from dreamer_async.cli.words.view import as_view


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
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Task of --env; confirms the task of another run that is module:factory.",
        ),
    ] = None,
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
    """Train on recorded experience, without environments: another run's replay, or episodes."""
    root = runs_root(runs_dir)
    flags = as_settings(
        updates=updates,
        seed=seed,
        device=device,
        precision=precision,
        threads=threads,
        compile=compile_,
        replay_dir=replay_dir,
    )
    words = [*as_overrides(flags | initial_weights(root, init, init_parts)), *(overrides or [])]
    said = Episodes(env, actions, as_view(env_args, kinds))
    config, many = wanted(root, source, words, said=said, task=task, size=size)
    trackers = wanted_trackers(log, tensorboard=tensorboard)
    notes = [unused_gpu(config.train.device, device_kind(config.train.device))]
    notes.append(check_room(config, root))
    run, swept = create_run(root, name, config, trackers=trackers)
    learned = f"learning from {many:,} steps of {config.replay.source}, {config.size}"
    for line in filter(None, (*swept, *notes, learned)):
        print(line, flush=True)
    return start(run, plain=plain, resume=False)
