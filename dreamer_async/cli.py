"""The command line: one small function per command, heavy imports inside them.

`dreamer-async --help` imports neither torch nor numpy. Mistakes of the user become one line on
stderr and exit code 2, and nothing has been created by then.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dreamer_async import __version__, env_commands, process, score_commands
from dreamer_async.bench import ALONE, PARTS
from dreamer_async.config import (
    SUITES,
    Config,
    ConfigError,
    changed_shapes,
    override,
    to_dict,
)
from dreamer_async.inputs import (
    as_overrides,
    configure,
    device_kind,
    existing_directory,
    name_again,
    need_extra,
    refuse_shadowing,
    runs_root,
)
from dreamer_async.options import (
    Compile,
    Device,
    Json,
    NumEnvs,
    Overrides,
    Plain,
    Precision,
    Ratio,
    RunRef,
    RunsDir,
    Size,
    Steps,
    Suite,
    SuiteOption,
    Task,
    TaskAgain,
    Tensorboard,
    Threads,
)
from dreamer_async.run_dir import RunDir, RunInUse, RunNotFound, list_runs

EXIT_USAGE, EXIT_CANNOT, EXIT_STUCK, EXIT_INTERRUPTED = 2, 73, 75, 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Train, watch and use DreamerV3 agents.",
)
runs_app = typer.Typer(help="List, show and remove runs.", rich_markup_mode=None)
app.add_typer(runs_app, name="runs")
env_commands.register(app)
score_commands.register(app)


# -- training --------------------------------------------------------------------------------


@app.command()
def train(
    suite: Suite,
    task: Task = None,
    size: Size = None,
    steps: Steps = None,
    num_envs: NumEnvs = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of everything.")] = None,
    ratio: Ratio = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    sync: Annotated[
        bool | None, typer.Option("--sync", help="Collect and learn in lockstep.")
    ] = None,
    compile_: Compile = None,
    resize: Annotated[
        str | None, typer.Option(metavar="HOW", help="Scaling of Atari's images: area or exact.")
    ] = None,
    plain: Plain = False,
    runs_dir: RunsDir = "runs",
    replay_dir: Annotated[
        str | None, typer.Option("--replay-dir", metavar="DIR", help="Keep the replay file there.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Label of the run instead of its task.")
    ] = None,
    tensorboard: Tensorboard = False,
    overrides: Overrides = None,
) -> int:
    """Train an agent: `train atari` starts on Pong."""
    flags = {
        "train.steps": steps,
        "env.num_envs": num_envs,
        "train.seed": seed,
        "train.train_ratio": ratio,
        "train.device": device,
        "train.precision": precision,
        "train.threads": threads,
        "train.sync": sync,
        "train.compile": compile_,
        "env.resize": resize,
        "replay.directory": None if replay_dir is None else existing_directory(replay_dir),
    }
    config, kind, note = configure(suite, task, size, flags, overrides)
    if tensorboard:
        need_extra("tensorboard", "--tensorboard")
    run = _create_run(runs_root(runs_dir), name or f"{suite}-{config.env.task}", config)
    if tensorboard:
        run.tensorboard.mkdir()
    where = "GPU" if kind == "cuda" else "CPU"
    print(f"{where}: {config.size}; change with --size", flush=True)
    if note:
        print(note, flush=True)
    return _start(run, plain=plain, resume=False)


@app.command()
def resume(
    ref: RunRef = "last",
    steps: Annotated[str | None, typer.Option(metavar="N", help="New end in agent steps.")] = None,
    num_envs: Annotated[
        str | None,
        typer.Option("--envs", metavar="N", help="Parallel environments; needs --drop-replay."),
    ] = None,
    device: Device = None,
    task: TaskAgain = None,
    plain: Plain = False,
    drop_replay: Annotated[
        bool, typer.Option("--drop-replay", help="Start with an empty replay.")
    ] = False,
    tensorboard: Tensorboard = False,
    runs_dir: RunsDir = "runs",
    overrides: Overrides = None,
) -> int:
    """Go on with a stopped or killed run.

    More --steps, and settings other than those that shape networks, task or replay may change.
    """
    from dreamer_async.runs import load_config, remove

    run = RunDir.find(runs_root(runs_dir), ref)
    old = load_config(run)
    name_again(old.env, task)
    flags = {"train.steps": steps, "env.num_envs": num_envs, "train.device": device}
    settings = as_overrides(flags) + (overrides or [])
    new = override(old, settings)
    for key, reason in changed_shapes(old, new, drop_replay=drop_replay).items():
        raise ConfigError(f"{key} cannot change in {run.name}: {reason}")
    device_kind(new.train.device)
    if tensorboard or run.tensorboard.is_dir():
        need_extra("tensorboard", "--tensorboard")
    if drop_replay:
        if (code := _without_valid_checkpoint(run)) != 0:
            return code
        freed = remove(run, only_replay=True)
        print(f"dropped {freed / 1e9:.2f} GB of replay", flush=True)
    with run.lock():  # refuses here, in words, what the trainer would refuse in its log
        if tensorboard:
            run.tensorboard.mkdir(exist_ok=True)
    return _start(run, plain=plain, resume=True, overrides=settings)


@app.command(hidden=True)
def trainer(
    path: Path,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    overrides: Overrides = None,
) -> int:
    """Run the trainer of a prepared run in the foreground."""
    from dreamer_async.pipeline import main as run_trainer

    return run_trainer(RunDir(path), plain=True, resume=resume, overrides=overrides or [])


@app.command()
def stop(
    ref: RunRef = "last",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end.")] = 120.0,
    runs_dir: RunsDir = "runs",
) -> int:
    """Let a run save and end, and wait for it."""
    run = RunDir.find(runs_root(runs_dir), ref)
    owner = run.owner()
    if owner is None:
        print(f"{run.name} is not running")
        return 0
    run.request("stop")
    deadline = time.monotonic() + timeout
    while run.owner() is not None:
        if time.monotonic() >= deadline:
            _complain(f"{run.name} (pid {owner['pid']}) is still stopping after {timeout:g} s")
            return EXIT_STUCK
        time.sleep(0.1)
    print(f"{run.name} has stopped; go on with `dreamer-async resume {run.name}`")
    return 0


# -- looking ---------------------------------------------------------------------------------


@app.command()
def watch(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or paths, or last.")
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option(help="Write one picture (SVG) of the dashboard instead.")
    ] = None,
    page: Annotated[str, typer.Option(metavar="PAGE", help="Page of the picture.")] = "overview",
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the picture.")] = "120x40",
    serve: Annotated[bool, typer.Option("--serve", help="Show it in a browser.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of --serve.")] = 8000,
    ascii_: Annotated[bool, typer.Option("--ascii", help="ASCII characters only.")] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Play films over ssh too.")] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Attach a dashboard to a live or finished run; further runs are laid over the first."""
    from dreamer_async.launch import dashboard_command, environment, serve_dashboard

    runs = [RunDir.find(runs_root(runs_dir), ref) for ref in refs or ["last"]]
    options = ["--ascii"] * ascii_ + ["--animate"] * animate
    if serve:
        need_extra("serve", "watch --serve")
        return serve_dashboard(runs, options, port)
    if screenshot is None and not _on_terminal():
        raise ConfigError("watch needs a terminal; `dreamer-async runs show` prints the numbers")
    if screenshot is not None:
        options += ["--screenshot", str(screenshot), "--page", page, "--size", size]
    line = dashboard_command(*runs, options=options)
    sys.stdout.flush()
    os.execve(line[0], line, environment())  # noqa: S606  our own interpreter and arguments


@app.command(name="eval")
def evaluate(
    ref: RunRef = "last",
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, max=100_000)] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto.")
    ] = "auto",
    best: Annotated[
        bool, typer.Option("--best", help="The checkpoint of the best training scores.")
    ] = False,
    task: TaskAgain = None,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Play full episodes with a run's newest checkpoint and print the scores."""
    run = RunDir.find(runs_root(runs_dir), ref)
    _name_again(run, task)
    device_kind(device)
    from dreamer_async.checkpoint import CheckpointError
    from dreamer_async.evaluate import evaluate as play

    try:
        result = cast(dict[str, Any], play(run, episodes, seed, device, best=best))
    except CheckpointError as error:
        _complain(str(error))
        return 65
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return 0
    print(f"{result['run']} ({result['task']}), {result['checkpoint']}: {episodes} episodes")
    print(" ".join(f"{score:g}" for score in result["scores"]))
    print(f"mean {result['mean']:.2f}  median {result['median']:.2f}  std {result['std']:.2f}")
    return 0


@app.command()
def dream(
    ref: RunRef = "last",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture, as PNG.")] = Path(
        "dream.png"
    ),
    rows: Annotated[int, typer.Option(min=1, max=16, help="Sequences to show.")] = 3,
    context: Annotated[int, typer.Option(min=1, help="Images seen before it dreams.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    task: TaskAgain = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Draw real images of a run, their reconstructions and an open-loop prediction."""
    run = RunDir.find(runs_root(runs_dir), ref)
    _name_again(run, task)
    need_extra("pictures", "dream")
    from dreamer_async.checkpoint import CheckpointError
    from dreamer_async.dream import draw

    try:
        draw(run, out, rows=rows, context=context, seed=seed)
    except CheckpointError as error:
        return _complain(str(error), 65)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(f"wrote {out}: real, reconstructed and dreamed images of {run.name}")
    return 0


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context, as_json: Json = False, runs_dir: RunsDir = "runs") -> int:
    """List the runs, newest first."""
    return _list(runs_dir, as_json) if context.invoked_subcommand is None else 0


@runs_app.command(name="list")
def runs_list(as_json: Json = False, runs_dir: RunsDir = "runs") -> int:
    """List the runs, newest first."""
    return _list(runs_dir, as_json)


@runs_app.command(name="show")
def runs_show(ref: RunRef = "last", as_json: Json = False, runs_dir: RunsDir = "runs") -> int:
    """Show where a run stands and how its settings differ from the presets."""
    from dreamer_async.runs import chosen_settings, load_config, summarize

    run = RunDir.find(runs_root(runs_dir), ref)
    config, summary = load_config(run), summarize(run)
    chosen = chosen_settings(config)
    checkpoints = sorted(path.name for path in run.checkpoints.glob("step-*"))
    if as_json:
        details = {"checkpoints": checkpoints, "chosen": chosen, "config": to_dict(config)}
        print(json.dumps(dataclasses.asdict(summary) | details))
        return 0
    for key, value in dataclasses.asdict(summary).items():
        print(f"{key:15} {value}")
    print(f"{'checkpoints':15} {' '.join(checkpoints) or 'none'}")
    print(f"{'settings':15} {' '.join(f'{k}={v}' for k, v in chosen.items()) or 'as preset'}")
    return 0


@runs_app.command(name="rm")
def runs_rm(
    refs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths.")],
    replay: Annotated[bool, typer.Option("--replay", help="Only the replay files.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Delete runs with their replay; refuses one that is running."""
    from dreamer_async.runs import remove

    found = [RunDir.find(runs_root(runs_dir), ref) for ref in refs]
    what = "the replay of " if replay else ""
    if not yes and _on_terminal():
        typer.confirm(f"Delete {what}{', '.join(run.name for run in found)}?", abort=True)
    for run in found:
        freed = remove(run, only_replay=replay)
        print(f"deleted {what}{run.name}, {freed / 1e9:.2f} GB freed")
    return 0


@app.command()
def doctor(
    as_json: Json = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Also compile something small.")
    ] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Say what works on this machine."""
    from dreamer_async.doctor import examine

    findings = examine(Path(runs_dir), compile_too=compile_)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for name, status, detail in findings:
            print(f"{status:8} {name:10} {detail}")
    return int(any(finding.status == "bad" for finding in findings))


@app.command()
def bench(
    part: Annotated[
        str,
        typer.Argument(metavar="PART", help=f"One of {', '.join((*PARTS, *ALONE))}, or all."),
    ] = "all",
    suite: SuiteOption = "",
    task: Task = None,
    size: Size = None,
    num_envs: NumEnvs = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    compile_: Compile = None,
    seconds: Annotated[float, typer.Option(min=0, max=3600, help="Seconds per part.")] = 10.0,
    pairs: Annotated[
        int, typer.Option(min=0, max=1000, help="Turns of a trainer with and without a dashboard.")
    ] = 0,
    trace: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="Write a trace of some updates instead."),
    ] = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> int:
    """Measure how fast the parts of a run are here, next to speeds measured elsewhere."""
    if part not in (known := (*PARTS, *ALONE, "all")):
        hint = f"; for another suite: bench --suite {part}" if part in SUITES else ""
        raise ConfigError(f"unknown part {part!r} (known: {', '.join(known)}){hint}")
    suite = suite or ("toy" if part in ALONE else "atari")
    flags = {
        "env.num_envs": num_envs,
        "train.device": device,
        "train.precision": precision,
        "train.threads": threads,
        "train.compile": compile_,
    }
    config = configure(suite, task, size, flags, overrides).config
    from dreamer_async.bench import measure, report

    process.prepare()
    if trace is not None:
        import envs
        from dreamer_async.bench.profile import profile

        result = profile(config, envs.spec(suite, config.env.task), trace)
        lines = report.profile_lines(result)
    else:
        result = measure(config, part, seconds, pairs)
        lines = report.bench_lines(result, part)
    print(json.dumps(result, allow_nan=False) if as_json else "\n".join(lines))
    return 0


@app.command()
def plan(
    suite: Suite,
    task: Task = None,
    size: Size = None,
    steps: Steps = None,
    num_envs: NumEnvs = None,
    ratio: Ratio = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    speeds: Annotated[
        bool, typer.Option("--speeds/--no-speeds", help="Measure for a minute how long it takes.")
    ] = True,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
    overrides: Overrides = None,
) -> int:
    """Say what a run would need: parameters, memory, replay, hours. Nothing is created."""
    flags = {
        "train.steps": steps,
        "env.num_envs": num_envs,
        "train.train_ratio": ratio,
        "train.device": device,
        "train.precision": precision,
        "train.threads": threads,
    }
    config = configure(suite, task, size, flags, overrides).config
    from dreamer_async.bench import report
    from dreamer_async.bench.plan import plan as work_out

    result = work_out(config, runs_root(runs_dir), speeds=speeds)
    lines = report.plan_lines(result)
    print(json.dumps(result, allow_nan=False) if as_json else "\n".join(lines))
    return 0


@app.command()
def version() -> int:
    """Print the version."""
    print(f"dreamer-async {__version__}")
    return 0


# -- steps of the commands -------------------------------------------------------------------


def _create_run(root: Path, label: str, config: Config) -> RunDir:
    try:
        return RunDir.create(root, label, config=to_dict(config))
    except OSError as error:
        raise OSError(f"cannot create a run in {root}: {error.strerror}") from error


def _name_again(run: RunDir, task: str | None) -> None:
    from dreamer_async.runs import load_config

    name_again(load_config(run).env, task)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _without_valid_checkpoint(run: RunDir) -> int:
    """Complain and return exit code 65 if nothing that the run has saved can be used; else 0."""
    from dreamer_async.checkpoint import CheckpointError
    from dreamer_async.restore import find

    try:
        find(run)
    except CheckpointError as error:
        return _complain(str(error), 65)
    return 0


def _start(run: RunDir, *, plain: bool, resume: bool, overrides: Sequence[str] = ()) -> int:
    """Train in this process, or in one of its own with the dashboard in front."""
    if plain or not _on_terminal():
        from dreamer_async.pipeline import main as run_trainer

        return run_trainer(run, plain=True, resume=resume, overrides=overrides)
    from dreamer_async.launch import Foreground, dashboard_command, start_trainer

    print(f"starting {run.name} ...", flush=True)
    started = start_trainer(run, resume=resume, overrides=overrides)
    return Foreground(run, started, sys.stdout).show(dashboard_command(run, options=["--owner"]))


def _list(runs_dir: str, as_json: bool) -> int:
    from dreamer_async.runs import summarize, table

    summaries, broken = [], []
    for run in list_runs(runs_root(runs_dir)):
        try:
            summaries.append(summarize(run))
        except ConfigError as error:
            broken.append(str(error))
    if as_json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries]))
    else:
        for row in table(summaries):
            print(row)
    for message in broken:
        _complain(message)
    return 0


# -- running it ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code for the shell."""
    process.sleep_while_waiting()
    try:
        refuse_shadowing()
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        result = app(words, prog_name="dreamer-async", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        return _complain(error.format_message(), EXIT_USAGE)
    except (ConfigError, RunNotFound) as error:
        return _complain(str(error), EXIT_USAGE)
    except RunInUse as error:
        return _complain(str(error), EXIT_CANNOT)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _complain(str(error), EXIT_CANNOT)


def _complain(message: str, code: int = EXIT_USAGE) -> int:
    """Print one line on stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
