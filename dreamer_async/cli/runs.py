"""The command `runs`: lists, shows and deletes the runs on the disk.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from dreamer_async.cli.options import (
    Json,
    RunRef,
    RunRefs,
    RunsDir,
    given,
)
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.terminal import complain, on_terminal
from dreamer_async.config import ConfigError, to_dict
from dreamer_async.store.run_dir import RunDir, list_runs
from dreamer_async.store.sizes import in_words
from dreamer_async.store.sweep_dir import SweepDir, find_runs, list_sweeps

runs_app = typer.Typer(help="List, show and remove runs.", rich_markup_mode=None)


@runs_app.callback(invoke_without_command=True)
def runs(context: typer.Context, as_json: Json = False, runs_dir: RunsDir = "runs") -> int:
    """List the runs, newest first."""
    if (command := context.invoked_subcommand) is None:
        return _list(runs_dir, as_json, [])
    if command == "rm" and given(context, "as_json"):
        raise ConfigError("--json is for runs list and runs show: runs rm prints lines")
    return 0


@runs_app.command(name="list")
def runs_list(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[SWEEP]...", help="Only the runs of these.")
    ] = None,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """List the runs, newest first; those of a sweep in its order."""
    return _list(runs_dir, as_json, refs or [])


@runs_app.command(name="show")
def runs_show(ref: RunRef = "last", as_json: Json = False, runs_dir: RunsDir = "runs") -> int:
    """Show how far a run or sweep is, and how its settings differ from the presets."""
    from dreamer_async.store.summary import chosen_settings, load_config, summarize

    if SweepDir.find(runs_root(runs_dir), ref) is not None:
        return _list(runs_dir, as_json, [ref])
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
    refs: RunRefs,
    replay: Annotated[bool, typer.Option("--replay", help="Delete only the replay files.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Delete runs and their replay; a run in training is refused."""
    from dreamer_async.store.removal import check, check_sweep, remove, remove_sweep
    from dreamer_async.store.removal import sweep as sweep_up

    root = runs_root(runs_dir)
    sweeps = [sweep for ref in refs if (sweep := SweepDir.find(root, ref))]
    for sweep in sweeps:
        check_sweep(sweep, root)
    runs = {RunDir.find(root, ref): ref for ref in refs if not SweepDir.find(root, ref)}
    found = runs | {run: run.name for sweep in sweeps for run in sweep.runs()}
    what = "the replay of " if replay else ""
    for run, ref in found.items():
        inside = SweepDir(run.path.parent).exists() and run.path.parent.parent == root.absolute()
        check(run, run.path.parent if inside else root, ref, sure=yes)
    names = [f"{sweep.name} with {len(sweep.runs())} runs" for sweep in sweeps]
    question = f"Delete {what}{', '.join([*names, *(run.name for run in runs)])}?"
    if not yes and not on_terminal():
        raise ConfigError(f"{question} Without a terminal, add --yes")
    if not yes:
        typer.confirm(question, abort=True)
    for line in sweep_up(root):
        print(line)
    for run in found:
        freed = remove(run, only_replay=replay)
        print(f"deleted {what}{run.name}, {in_words(freed)} freed")
    for sweep in sweeps if not replay else ():
        remove_sweep(sweep)
        print(f"deleted {sweep.name}")
    return 0


def _list(runs_dir: str, as_json: bool, refs: Sequence[str]) -> int:
    from dreamer_async.store.removal import leftovers, size_of
    from dreamer_async.store.summary import summarize, table

    root = runs_root(runs_dir)
    summaries, broken = [], []
    for run in find_runs(root, refs) if refs else list_runs(root):
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
    if refs:
        return 0
    for sweep in list_sweeps(root):
        _tell_of(sweep, as_json=as_json)
    for path in leftovers(root):
        size = in_words(size_of(path))
        complain(f"{path} ({size}) was left by a killed command; `train` or `runs rm` removes it")
    return 0


def _tell_of(sweep: SweepDir, *, as_json: bool) -> None:
    """One line about a sweep, behind the table of runs."""
    try:
        made, asked = len(sweep.runs()), sweep.read()
    except (ValueError, OSError) as error:
        complain(str(error))
        return
    if not as_json:
        count = max(len(asked.jobs), asked.trials)
        print(f"{sweep.name}: a sweep, {made} of {count} runs made; `runs list {sweep.name}`")
