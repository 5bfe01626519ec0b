"""`dreamer-async train`, `resume` and `stop`: starting runs, going on with them, ending them.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dreamer_async.cli.inputs import (
    as_overrides,
    as_settings,
    check_devices,
    check_restarts,
    configure,
    device_kind,
    initial_weights,
    name_again,
    try_spaces,
    unused_gpu,
    wanted_trackers,
)
from dreamer_async.cli.new_run import check_room, create_run
from dreamer_async.cli.options import (
    Compile,
    Device,
    Devices,
    DevicesAgain,
    EnvArgs,
    Init,
    InitParts,
    Kinds,
    Log,
    MaxRestarts,
    Name,
    NumEnvs,
    Overrides,
    Plain,
    Precision,
    Published,
    Ratio,
    ReplayDir,
    RunRef,
    RunsDir,
    Seed,
    Size,
    Steps,
    Suite,
    Task,
    TaskAgain,
    Tensorboard,
    Threads,
)
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.ranks import devices_of, follow_run, made_before, remember_launch
from dreamer_async.cli.terminal import complain, on_terminal, warn
from dreamer_async.cli.words.resume import check_ends, refuse_an_end_behind, with_environment
from dreamer_async.cli.words.view import shown_args, with_view
from dreamer_async.config import ConfigError, changed_shapes, override, to_dict
from dreamer_async.parallel.world import World
from dreamer_async.run import checkpoint_room
from dreamer_async.store import exit_codes
from dreamer_async.store.events import next_generation
from dreamer_async.store.json_file import read_json, write_json_atomic
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sizes import in_words
from dreamer_async.store.sweep_dir import SweepDir


def train(
    suite: Suite,
    task: Task = None,
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    size: Size = None,
    steps: Steps = None,
    num_envs: NumEnvs = None,
    seed: Seed = None,
    ratio: Ratio = None,
    device: Device = None,
    devices: Devices = 1,
    max_restarts: MaxRestarts = 0,
    precision: Precision = None,
    threads: Threads = None,
    sync: Annotated[
        bool | None, typer.Option("--sync", help="Collect and learn in lockstep.")
    ] = None,
    compile_: Compile = None,
    resize: Annotated[
        str | None, typer.Option(metavar="HOW", help="Scaling of Atari's images: area or exact.")
    ] = None,
    repeat: Annotated[
        str | None, typer.Option(metavar="N", help="Take each action N times (action repeat).")
    ] = None,
    published: Published = False,
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
    """Train an agent: `train atari` starts on Pong."""
    if not World.here().leads:
        return follow_run()
    if (made := made_before(runs_root(runs_dir))) is not None:
        return start(made, plain=plain, resume=True)
    flags = as_settings(
        steps=steps,
        num_envs=num_envs,
        seed=seed,
        ratio=ratio,
        device=device,
        precision=precision,
        threads=threads,
        sync=sync,
        compile=compile_,
        resize=resize,
        repeat=repeat,
        replay_dir=replay_dir,
    )
    flags |= initial_weights(runs_root(runs_dir), init, init_parts)
    settings = with_view(env_args, kinds, overrides)
    config, kind, note = configure(suite, task, size, flags, settings, published=published)
    trackers = wanted_trackers(log, tensorboard=tensorboard)
    try_spaces(config)
    check_devices(config, kind, devices)
    check_restarts(max_restarts, devices)
    notes = [note, check_room(config, runs_root(runs_dir))]
    run, swept = create_run(runs_root(runs_dir), name, config, trackers=trackers)
    remember_launch(run)
    for line in swept:
        print(line, flush=True)
    where = "GPU" if kind == "cuda" else "CPU"
    print(
        f"model {config.size} on the {where}{'' if size else '; --size takes another'}", flush=True
    )
    for line in filter(None, notes):
        print(line, flush=True)
    return start(run, plain=plain, resume=False, devices=devices, restarts=max_restarts)


def resume(
    ref: RunRef = "last",
    steps: Annotated[
        str | None, typer.Option(metavar="N", help="End after this many agent steps instead.")
    ] = None,
    num_envs: Annotated[
        str | None,
        typer.Option(
            "--envs", metavar="N", help="Number of parallel environments; needs --drop-replay."
        ),
    ] = None,
    device: Device = None,
    devices: DevicesAgain = None,
    max_restarts: MaxRestarts = 0,
    task: TaskAgain = None,
    updates: Annotated[
        str | None,
        typer.Option(
            "--updates", metavar="N", help="End after this many updates instead, after `learn`."
        ),
    ] = None,
    online: Annotated[
        bool,
        typer.Option("--online", help="Continue a run of `learn` with its task's environments."),
    ] = False,
    env: Annotated[
        str | None,
        typer.Option(
            "--env",
            metavar="SUITE",
            help="Continue a run of `learn FOLDER` with these environments.",
        ),
    ] = None,
    env_args: EnvArgs = None,
    plain: Plain = False,
    drop_replay: Annotated[
        bool, typer.Option("--drop-replay", help="Delete the replay and start with an empty one.")
    ] = False,
    log: Log = None,
    tensorboard: Tensorboard = False,
    runs_dir: RunsDir = "runs",
    overrides: Overrides = None,
) -> int:
    """Continue a stopped or killed run.

    It may take more --steps, and settings that do not shape the networks, task or replay.
    """
    if not World.here().leads:
        return follow_run()
    from dreamer_async.cli.words.learn import check_source
    from dreamer_async.store.removal import remove
    from dreamer_async.store.summary import load_config

    if SweepDir.find(runs_root(runs_dir), ref) is not None:
        text = f"`dreamer-async sweep {ref}` continues all its runs, `resume {ref}/RUN` one of them"
        raise ConfigError(f"{ref} is a sweep: {text}")
    run = RunDir.find(runs_root(runs_dir), ref)
    drop_replay = drop_replay and not World.here().restarts  # the first life has done so
    old = load_config(run)
    if env is not None:
        old = replace(old, env=with_environment(run, old, env, env_args))
    elif env_args:
        raise ConfigError("--env-arg needs --env SUITE; a run keeps the arguments it has")
    name_again(old.env, task)
    flags = as_settings(steps=steps, updates=updates, num_envs=num_envs, device=device)
    settings = as_overrides(flags) + (overrides or [])
    check_ends(run, old, settings, moved=updates is not None, online=online or env is not None)
    settings += ["train.updates=0"] * (online or env is not None)
    new = override(old, settings)
    for key, reason in changed_shapes(old, new, drop_replay=drop_replay).items():
        raise ConfigError(f"{key} cannot change in {run.name}: {reason}")
    refuse_an_end_behind(run, new, moved=steps is not None)
    kind = device_kind(new.train.device)
    kept = old.replay.directory
    count = devices_of(run, devices, kept, drop_replay=drop_replay)
    if devices is None and count > 1:
        print(f"on {count} devices, as before", flush=True)
    check_devices(new, kind, count)
    check_restarts(max_restarts, count)
    trackers = wanted_trackers(log, tensorboard=tensorboard, run=run)
    if note := unused_gpu(new.train.device, kind):
        print(note, flush=True)
    if drop_replay:
        from dreamer_async.replay.setup import check_directory
        from dreamer_async.store.checkpoint import to_resume

        to_resume(run.checkpoints)  # its error comes before anything is lost, as the next two
        check_directory(new)
        if new.train.updates:
            check_source(new)
        freed = remove(run, only_replay=True)
        print(f"deleted a replay of {in_words(freed)}", flush=True)
    if warning := checkpoint_room.room_to_resume(new, run.checkpoints):
        print(warning, flush=True)
    if new.env.args:
        print(f"arguments of the environment: {shown_args(new.env.args)}", flush=True)
    with run.lock():  # refuses here, in words, what the trainer would refuse in its log
        before, lives = read_json(run.config_path), next_generation(run.events_path)
        if env is not None:
            write_json_atomic(run.config_path, to_dict(old))
        for tracker in trackers:
            run.tracker(tracker).mkdir(exist_ok=True)
    code = start(
        run,
        plain=plain,
        resume=True,
        overrides=settings,
        devices=count,
        restarts=max_restarts,
    )
    if env is not None and code and next_generation(run.events_path) == lives:  # not begun
        write_json_atomic(run.config_path, before)
    return code


def trainer(
    path: Path,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    overrides: Overrides = None,
    devices: Devices = 1,
    max_restarts: MaxRestarts = 0,
) -> int:
    """Run the trainer of a prepared run in the foreground, or launch its ranks."""
    if devices > 1:
        from dreamer_async.parallel.launch import launch
        from dreamer_async.store.summary import load_config

        return launch(
            RunDir(path),
            devices,
            resume=resume,
            overrides=overrides or [],
            restarts=max_restarts,
            grace=load_config(RunDir(path)).train.grace_seconds,
        )
    from dreamer_async.run.pipeline import main as run_trainer

    return run_trainer(RunDir(path), plain=True, resume=resume, overrides=overrides or [])


def stop(
    ref: RunRef = "last",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end.")] = 120.0,
    runs_dir: RunsDir = "runs",
) -> int:
    """Ask a run or sweep to save and end, and wait until it has."""
    from dreamer_async.sweep.stop import until

    if (sweep := SweepDir.find(runs_root(runs_dir), ref)) is not None:
        return _stop_sweep(sweep, timeout)
    run = RunDir.find(runs_root(runs_dir), ref)
    owner = run.owner()
    if owner is None:
        print(f"{run.name} is not running")
        return 0
    run.request("stop")
    if not until(lambda: run.owner() is None, timeout):
        text = f"{run.name} (pid {owner['pid']}) is still stopping after {timeout:g} s"
        return complain(text, exit_codes.STUCK)
    print(f"{run.name} has stopped; continue with `dreamer-async resume {run.name}`")
    return 0


def _stop_sweep(sweep: SweepDir, timeout: float) -> int:
    from dreamer_async.sweep.stop import stop

    stopped = stop(sweep, timeout)
    if stopped.problem:
        warn(stopped.problem)
    if not stopped.in_time:
        return complain(f"{sweep.name} is still stopping after {timeout:g} s", exit_codes.STUCK)
    print(
        f"{sweep.name} has stopped; continue with `dreamer-async sweep {sweep.name}`"
        if stopped.ran
        else f"{sweep.name} is not running"
    )
    return 0


def start(
    run: RunDir,
    *,
    plain: bool,
    resume: bool,
    overrides: Sequence[str] = (),
    devices: int = 1,
    restarts: int = 0,
) -> int:
    """Train in this process, or in one of its own with the dashboard in front.

    On several devices the process is a launcher of ranks, unless torchrun has started this one.
    """
    ranks = World.here().size > 1
    if plain or ranks or not on_terminal():
        if devices > 1:
            return trainer(run.path, resume, [*overrides], devices, restarts)
        from dreamer_async.run.pipeline import main as run_trainer

        return run_trainer(run, plain=True, resume=resume, overrides=overrides)
    from dreamer_async.cli.launch import Foreground, dashboard_command, start_trainer

    print(f"starting {run.name} ...", flush=True)
    started = start_trainer(
        run, resume=resume, overrides=overrides, devices=devices, restarts=restarts
    )
    return Foreground(run, started, sys.stdout).show(dashboard_command(run, options=["--owner"]))
