"""`dreamer-async scores` and `curves`: runs by the paper's protocol, and as CSV.

Heavy imports are inside the command.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from dreamer_async.cli import completion
from dreamer_async.cli.inputs import need_extra, only_with
from dreamer_async.cli.options import Json, RunsDir
from dreamer_async.cli.paths import check_target, runs_root
from dreamer_async.config import ConfigError
from dreamer_async.machine.console import printable
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sizes import counted
from dreamer_async.store.sweep_dir import SweepDir

if TYPE_CHECKING:
    from dreamer_async.scores.aggregate import Aggregate
    from dreamer_async.scores.curves import Band
    from dreamer_async.scores.protocol import Played, SuiteScore, TaskScore


def scores(
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Names or paths; default: last.",
            autocompletion=completion.runs,
        ),
    ] = None,
    curve: Annotated[
        bool | None,
        typer.Option("--curve/--no-curve", help="Show all bins; the default for one task."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw normalized scores (png, pdf, svg)."),
    ] = None,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Print the scores of runs as the paper reports them, beside the published ones.

    Runs of a sweep are grouped by their settings.
    """
    if plot is not None:
        need_extra("plots", "scores --plot")
        check_target(plot, "--plot")
    from dreamer_async.scores.aggregate import aggregate
    from dreamer_async.scores.protocol import score_suites, score_tasks

    groups = []
    for label, played in _played(runs_root(runs_dir), refs or ["last"]).items():
        tasks = score_tasks(played)
        groups.append(Scored(label, tasks, score_suites(tasks), aggregate(tasks)))
    if plot is not None:
        _plot(groups, plot)
    if as_json:
        only_with("tables for people", False, curve=curve)
        print(json.dumps(_as_json(groups), allow_nan=False))
        return 0
    shown = sum(len(group.tasks) for group in groups) == 1 if curve is None else curve
    print("\n\n".join("\n".join(block) for group in groups for block in group_blocks(group, shown)))
    return 0


class Scored(NamedTuple):
    """Runs of one kind: those without a sweep, or those of a sweep with the same settings."""

    label: str
    tasks: list[TaskScore]
    suites: list[SuiteScore]
    aggregates: list[Aggregate]


def _played(root: Path, refs: Sequence[str]) -> dict[str, list[Played]]:
    """The episodes of runs, by what sets the runs of a sweep apart; ConfigError without any.

    Runs of a sweep that have not begun yet are passed over.
    """
    from dreamer_async.scores.protocol import read_run
    from dreamer_async.scores.runs import names_of
    from dreamer_async.store.summary import load_config

    found: dict[Path, tuple[str, RunDir]] = {}
    for ref in refs:
        sweep = SweepDir.find(root, ref)
        if sweep is None:
            run = RunDir.find(root, ref)
            found.setdefault(run.path, ("", run))
            continue
        runs = [(job.variant, sweep.run(job)) for job in sweep.read().jobs]
        begun = [(text, run) for text, run in runs if run.exists() and run.events_path.exists()]
        if not begun:
            raise ConfigError(f"no run of the sweep {sweep.name} has begun: it has no score")
        for variant, run in begun:
            run.refuse_links()
            found.setdefault(run.path, (variant, run))
    names = names_of([run for _, run in found.values()])
    groups: dict[str, list[Played]] = {}
    for (label, run), name in zip(found.values(), map(printable, names), strict=True):
        played = dataclasses.replace(read_run(run, load_config(run)), name=name)
        groups.setdefault(label, []).append(played)
    return groups


def _as_json(groups: Sequence[Scored]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {"tasks": [], "suites": [], "aggregates": []}
    for group in groups:
        named = {"settings": group.label}
        for task in group.tasks:
            rows["tasks"].append(named | dataclasses.asdict(task) | {"verdict": task.verdict})
        rows["suites"] += [named | dataclasses.asdict(each) for each in group.suites]
        rows["aggregates"] += [named | dataclasses.asdict(each) for each in group.aggregates]
    return rows


def _plot(groups: Sequence[Scored], path: Path) -> None:
    from dreamer_async.scores.aggregate import table
    from dreamer_async.scores.plot import FORMATS, Group, draw

    if path.suffix not in FORMATS:
        raise ConfigError(f"--plot needs a name that ends in {', '.join(FORMATS)}, got {path}")
    found = []
    for group in groups:
        published = {suite.suite: suite for suite in group.suites}
        for each in group.aggregates:
            scores, _ = table([task for task in group.tasks if task.suite == each.suite])
            known = published.get(each.suite)
            label = group.label or each.suite
            found.append(
                Group(
                    label,
                    each,
                    scores,
                    known and known.published_mean,
                    known and known.published_median,
                )
            )
    if not found:
        raise ConfigError("no run that has seen its whole budget has a normalized score to draw")
    draw(found, path)
    print(f"wrote {path}", file=sys.stderr)


def group_blocks(group: Scored, shown: bool) -> list[list[str]]:
    """Runs of one kind for people: its tasks, its suites, and what they come to."""
    blocks = [task_lines(task, curve=shown) for task in group.tasks]
    blocks += [suite_lines(suite) for suite in group.suites]
    blocks += [aggregate_lines(each) for each in group.aggregates]
    if group.label:
        blocks[0] = [f"== {printable(group.label)}", "", *blocks[0]]
    return blocks


def aggregate_lines(each: Aggregate) -> list[str]:
    """Interquartile mean, median and mean, with their intervals."""
    lines = [
        f"{each.suite}, {counted(each.runs, 'run')} of each of {counted(each.tasks, 'task')}: "
        "normalized, with bootstrap intervals of 95 %"
    ]
    for name in ("iqm", "median", "mean"):
        found = getattr(each, name)
        span = "" if found.low is None else f"  {found.low:.3f} to {found.high:.3f}"
        lines.append(f"  {name:8} {found.value:.3f}{span}")
    if each.left_out:
        lines.append(f"  {counted(each.left_out, 'run')} left out: other tasks have fewer")
    return lines


def curves(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Names or paths; default: last.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Group name of these runs; default: lockstep or overlapped."
        ),
    ] = "",
    runs_dir: RunsDir = "runs",
) -> int:
    """Print returns and losses of runs as CSV, thinned to a few hundred points each."""
    from dreamer_async.scores.learning import command, read_curve, write_curves
    from dreamer_async.scores.runs import names_of
    from dreamer_async.store.summary import load_config

    if target is not None:
        check_target(target, "--output")
    root = runs_root(runs_dir)
    found = {run.path: run for run in (RunDir.find(root, ref) for ref in refs or ["last"])}
    names = map(printable, names_of([*found.values()]))
    made = [(name, run, load_config(run)) for name, run in zip(names, found.values(), strict=True)]
    notes = [f"{name}: {command(config)}" for name, _, config in made]
    read = [
        dataclasses.replace(read_curve(run, config, group), run=name) for name, run, config in made
    ]
    if target is None:
        write_curves(sys.stdout, read, notes)
        return 0
    with target.open("w", encoding="utf-8", newline="") as file:
        write_curves(file, read, notes)
    print(f"wrote {target}: {counted(len(read), 'run')}")
    return 0


def task_lines(task: TaskScore, *, curve: bool) -> list[str]:
    """One task for people: its runs, its score, and its curve if wanted."""
    budget = f"{task.budget:,.0f} frames"
    repeat = f", {task.frames_per_step} a step" * (task.frames_per_step > 1)
    lines = [f"{task.suite}/{task.task}, budget {budget}{repeat}"]
    width = max(len(run.name) for run in task.runs)
    lines.append(f"  {'run':{width}} {'seed':>6} {'frames':>13} {'episodes':>9} {'score':>12}")
    for run in task.runs:
        missing = "not yet" if run.frames < task.budget else "none"
        score = missing if run.score is None else _number(run.score)
        lines.append(
            f"  {run.name:{width}} {run.seed:6} {run.frames:13,.0f} {run.episodes:9,} {score:>12}"
        )
    lines += ["", *_score_lines(task)]
    if curve and task.bins:
        lines += ["", *_curve_lines(task)]
    return lines


def _score_lines(task: TaskScore) -> list[str]:
    """The task's score beside the published one, and how far they may be compared."""
    done = [run for run in task.runs if run.score is not None]
    ours = "no run has seen the whole budget yet"
    if any(run.frames >= task.budget for run in task.runs):
        ours = "none, as no episode ended in it"
    if task.score is not None:
        ours = f"{_spread(task.score, task.score_std)} over {counted(len(done), 'run')}"
    lines = [f"  score      {ours} (mean of the last tenth of the budget)"]
    if task.published is None:
        return [*lines, "  published  no curve"]
    seeds = counted(task.published_seeds, "seed")
    lines.append(f"  published  {_number(task.published)} over {seeds} ({task.made_with})")
    if task.published_normalized is not None:
        own = "" if task.normalized is None else f"{task.normalized:.3f}, "
        lines.append(
            f"  normalized {own}published {task.published_normalized:.3f} "
            "(0 random play, 1 the reference player)"
        )
    if task.differences:
        lines.append(f"  not set up as published: {'; '.join(task.differences)}")
    elif task.verdict:
        lines.append(f"  {task.verdict} in the last bin of all runs")
    return lines


def _curve_lines(task: TaskScore) -> list[str]:
    """One line per bin: mean and deviation over runs, median and range of the published seeds."""
    lines = [f"  {'up to frame':>13} {'runs':>5} {'episodes':>9}   {'return':22} published"]
    for part in task.bins:
        theirs = "-" if part.published is None else _band(part.published)
        lines.append(
            f"  {part.frames:13,.0f} {part.runs:5} {part.episodes:9,}   "
            f"{_spread(part.mean, part.std):22} {theirs}"
        )
    return lines


def suite_lines(suite: SuiteScore) -> list[str]:
    """Normalized scores over the tasks of a suite."""
    lines = [
        f"{suite.suite}, normalized over {counted(suite.tasks, 'task')}: "
        f"mean {suite.mean:.3f}, median {suite.median:.3f}"
    ]
    if suite.published_mean is not None:
        lines.append(
            f"  published over the same tasks: mean {suite.published_mean:.3f}, "
            f"median {suite.published_median:.3f}"
        )
    return lines


def _spread(mean: float, std: float | None) -> str:
    return _number(mean) if std is None else f"{_number(mean)} ± {_number(std)}"


def _band(band: Band) -> str:
    return f"{_number(band.median)} ({_number(band.low)} to {_number(band.high)})"


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
