"""Commands that look at a run on disk: `watch`, `eval`, `dream` and `runs`.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dreamer_async.cli.inputs import device_kind, name_again, need_extra, unused_gpu
from dreamer_async.cli.options import Json, RunRef, RunsDir, TaskAgain
from dreamer_async.cli.paths import check_target, runs_root
from dreamer_async.cli.terminal import complain, on_terminal, warn
from dreamer_async.config import ConfigError, to_dict
from dreamer_async.store.run_dir import RunDir, list_runs

runs_app = typer.Typer(help="List, show and remove runs.", rich_markup_mode=None)


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
    """Attach a dashboard to a live or finished run. Further runs are laid over the first."""
    from dreamer_async.cli.launch import become_dashboard

    runs = [RunDir.find(runs_root(runs_dir), ref) for ref in refs or ["last"]]
    options = ["--ascii"] * ascii_ + ["--animate"] * animate
    if serve:
        need_extra("serve", "watch --serve")
        from dreamer_async.cli.serve import serve_dashboard

        return serve_dashboard(runs, options, port)
    if screenshot is not None:
        check_target(screenshot, "--screenshot")
        options += ["--screenshot", str(screenshot), "--page", page, "--size", size]
    become_dashboard(runs, options, terminal=screenshot is None)


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
    """Play full episodes with a run's newest checkpoint, print scores."""
    run = RunDir.find(runs_root(runs_dir), ref)
    _name_again(run, task)
    if note := unused_gpu(device, device_kind(device)):
        print(note, file=sys.stderr, flush=True)
    from dreamer_async.run.evaluate import evaluate as play

    result = play(run.path, episodes, seed, device=device, best=best)
    _warn_of_skipped(result.skipped)
    if as_json:
        print(json.dumps(result.record(), allow_nan=False))
        return 0
    print(f"{result.run} ({result.task}), {result.checkpoint}: {episodes} episodes")
    print(f"after {result.env_steps:,} agent steps, {result.frames:,} frames")
    print(" ".join(f"{score:g}" for score in result.scores))
    print(f"mean {result.mean:.2f}  median {result.median:.2f}  std {result.std:.2f}")
    return 0


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
    """Draw images of a run, as they were, reconstructed and dreamed."""
    run = RunDir.find(runs_root(runs_dir), ref)
    _name_again(run, task)
    need_extra("pictures", "dream")
    check_target(out, "--out")
    from dreamer_async.replay.ring import RingMismatch
    from dreamer_async.run.dream import draw

    try:
        _warn_of_skipped(draw(run, out, rows=rows, context=context, seed=seed))
    except RingMismatch:
        raise
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
    from dreamer_async.store.summary import chosen_settings, load_config, summarize

    run = RunDir.find(runs_root(runs_dir), ref)
    config, summary = load_config(run), summarize(run)
    chosen = chosen_settings(config)
    checkpoints = sorted(path.name for path in run.checkpoints.glob("step-*"))
    if as_json:
        details = {"checkpoints": checkpoints, "chosen": chosen, "config": to_dict(config)}
        print(json.dumps(dataclasses.asdict(summary) | details))
        return 0
    for key, value in dataclasses.asdict(summary).items():
        print(f"{key:15} {value}{', reset rows included' * (key == 'env_steps')}")
    print(f"{'checkpoints':15} {' '.join(checkpoints) or 'none'}")
    settings = " ".join(f"{key}={_shown(value)}" for key, value in chosen.items())
    print(f"{'settings':15} {settings or 'as preset'}")
    return 0


def _shown(value: Any) -> str:
    """A setting as -s takes it."""
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


@runs_app.command(name="rm")
def runs_rm(
    refs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths.")],
    replay: Annotated[bool, typer.Option("--replay", help="Only the replay files.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Delete runs with their replay; refuses one that is running, and what is no run."""
    from dreamer_async.store.removal import check, remove, sweep

    root = runs_root(runs_dir)
    found = {RunDir.find(root, ref): ref for ref in refs}
    what = "the replay of " if replay else ""
    for run, ref in found.items():
        check(run, root, ref, sure=yes)
    question = f"Delete {what}{', '.join(run.name for run in found)}?"
    if not yes and not on_terminal():
        raise ConfigError(f"{question} Nobody can be asked without a terminal: add --yes")
    if not yes:
        typer.confirm(question, abort=True)
    for line in sweep(root):
        print(line)
    for run in found:
        freed = remove(run, only_replay=replay)
        print(f"deleted {what}{run.name}, {freed / 1e9:.2f} GB freed")
    return 0


def _name_again(run: RunDir, task: str | None) -> None:
    from dreamer_async.store.summary import load_config

    name_again(load_config(run).env, task)


def _warn_of_skipped(reasons: Sequence[str]) -> None:
    """Say that an older checkpoint was taken, and why."""
    for reason in reasons:
        warn(f"checkpoint skipped: {reason}")


def _list(runs_dir: str, as_json: bool) -> int:
    from dreamer_async.store.removal import leftovers, size_of
    from dreamer_async.store.summary import summarize, table

    root = runs_root(runs_dir)
    summaries, broken = [], []
    for run in list_runs(root):
        try:
            run.refuse_links()
            summaries.append(summarize(run))
        except (ValueError, OSError) as error:  # one bad run must not hide the others
            told = str(error)
            broken.append(told if run.name in told else f"{run.name}: {told}")
    if as_json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries]))
    else:
        for row in table(summaries):
            print(row)
    for message in broken:
        complain(message)
    for path in leftovers(root):
        size = f"{size_of(path) / 1e9:.2f} GB"
        complain(f"{path} ({size}) was left by a killed command; `train` or `runs rm` removes it")
    return 0
