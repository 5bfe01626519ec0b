"""`dreamer-async envs` and `dreamer-async env check`: what there is, and what an agent would see.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamer_async.cli import completion
from dreamer_async.cli.inputs import only_with
from dreamer_async.cli.options import EnvArgs, Json, Kinds, RunRefs, RunsDir
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.words.task import find_task
from dreamer_async.cli.words.view import with_view
from dreamer_async.config import SUITES, ConfigError, EnvConfig, parse_overrides, resolve
from dreamer_async.store.run_dir import RunDir

if TYPE_CHECKING:
    from dreamer_async.envs.check import Report

VIEW = ("env.args", "env.kinds", "env.image")
"""Settings that say how a task is built and read."""
SHOWN_TASKS = 60
"""More tasks than these are only listed with --all."""

env_app = typer.Typer(help="Try an environment.", rich_markup_mode=None)


def list_envs(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="Suite whose tasks to list.",
            autocompletion=completion.only_suites,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all tasks, however many.")] = False,
    as_json: Json = False,
) -> int:
    """List the suites, or the tasks of one, with what each needs."""
    from dreamer_async import envs

    only_with("a suite, whose tasks it lists", suite is not None, all=every)
    if suite is not None:
        try:
            suite = envs.find_suite(suite)
        except envs.UnknownTask as error:
            raise ConfigError(str(error)) from None
    chosen = envs.suites() if suite is None else (suite,)
    found = [_describe(name) for name in chosen]
    if as_json:
        print(json.dumps(found if suite is None else found[0]))
    elif suite is None:
        print("\n".join(_suite_lines(found)))
    else:
        print("\n".join(_task_lines(found[0], every)))
    return 0


def _describe(suite: str) -> dict[str, Any]:
    from dreamer_async import envs

    preset = SUITES[suite]
    return {
        "suite": suite,
        "about": envs.about(suite),
        "tasks": list(envs.tasks(suite)),
        "default": envs.default_task(suite),
        "needs": list(envs.needed(suite)),
        "missing": list(envs.missing(suite)),
        "remarks": {task: said for task in envs.tasks(suite) if (said := envs.remark(suite, task))},
        "preset": dict(preset),
    }


def _suite_lines(found: Iterable[dict[str, Any]]) -> list[str]:
    lines = [f"{'':2}{'suite':13}{'tasks':>6}  what"]
    lacking: list[str] = []
    for entry in found:
        mark = "-" if entry["missing"] else "+"
        count = len(entry["tasks"]) or "any"
        lines.append(f"{mark} {entry['suite']:13}{count:>6}  {entry['about']}")
        lacking += entry["missing"]
    lines += ["", "+ can run here; - cannot:" if lacking else "All of them can run here."]
    return lines + [f"  {reason}" for reason in lacking]


def _task_lines(entry: dict[str, Any], every: bool) -> list[str]:
    tasks: list[str] = entry["tasks"]
    shown = tasks if every else tasks[:SHOWN_TASKS]
    preset = " ".join(f"{key}={value}" for key, value in entry["preset"].items())
    lines = [f"{entry['suite']}: {entry['about']}", f"preset: {preset or 'the defaults'}"]
    lines.append(f"needs: {', '.join(entry['needs']) or 'nothing else'}")
    lines += entry["missing"] or ["can run here"]
    lines += [f"  {task}{_mark(entry, task)}" for task in shown]
    if hidden := len(tasks) - len(shown):
        lines.append(f"  and {hidden} more: --all")
    if not tasks:
        lines.append(f"  any id, such as {entry['default']}")
    return lines


def _mark(entry: dict[str, Any], task: str) -> str:
    remark = entry["remarks"].get(task, "")
    return " (default)" * (task == entry["default"]) + f"  {remark}" * bool(remark)


@env_app.command(name="check")
def check_env(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="SUITE/TASK, a Gymnasium id, or module:factory.",
            autocompletion=completion.suites,
        ),
    ],
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    episodes: Annotated[
        int,
        typer.Option("--episodes", "-n", min=1, max=100_000, help="Stop after this many episodes."),
    ] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Stop after this many seconds.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the environments.")] = 0,
    as_json: Json = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="env.args, env.kinds, env.image."),
    ] = None,
) -> int:
    """Play random episodes; print what an agent would see, and what is wrong."""
    suite, task = find_task(name)
    env = _viewed(suite, task, with_view(env_args, kinds, overrides))
    from dreamer_async.envs import View
    from dreamer_async.envs.check import check

    say = partial(typer.echo, err=True)
    try:
        report = check(suite, task, episodes, seconds, seed, say, View.of(env))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if as_json:
        print(json.dumps(dataclasses.asdict(report), allow_nan=False))
    else:
        print("\n".join(report_lines(report)))
    return 0


def _viewed(suite: str, task: str, settings: list[str]) -> EnvConfig:
    """The task as the settings say; ConfigError for those that a look at it does not need."""
    for key in parse_overrides(settings):
        if key not in VIEW:
            raise ConfigError(f"{key} makes no difference here; use {', '.join(VIEW)}")
    return resolve(suite, task, overrides=settings).env


@env_app.command(name="score")
def score(
    refs: RunRefs,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Print a benchmark's own score of runs: crafter's success rates, bsuite's experiments."""
    from dreamer_async.scores.suites import official_scores
    from dreamer_async.store.summary import load_config

    runs = [RunDir.find(runs_root(runs_dir), ref) for ref in refs]
    tasks = [load_config(run).env for run in runs]
    result = official_scores([(r, e.suite, e.task) for r, e in zip(runs, tasks, strict=True)])
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return 0
    for entry in result.pop("experiments", []):
        state = "finished" if entry["finished"] else "not finished"
        of = f"{entry['settings']} of {entry['of']} settings"
        print(f"{entry['experiment']:24}{entry['score']:8.3f}  {state}, {of}")
    for name, value in result.items():
        print(f"{name:32}{value:8g}")
    return 0


def report_lines(report: Report) -> list[str]:
    """A report for people."""
    lines = [f"{report.suite}/{report.task}", "", f"{'observation':24}{'shape':>14}  type"]
    for name, seen in report.obs.items():
        shape = "x".join(map(str, seen.shape)) or "scalar"
        kind = f"{seen.dtype} of {seen.classes}" if seen.classes else seen.dtype
        span = f"{seen.low:.4g} to {seen.high:.4g}, mean {seen.mean:.4g}"
        lines.append(f"{name:24}{shape:>14}  {kind:14} {seen.encoder}  {span}")
        if seen.taken:
            others = f"; others: --as {seen.key}={seen.others}" * bool(seen.others)
            lines.append(f"  taken for {seen.taken}{others}")
    repeat = report.frames_per_step
    lines += ["", f"action    {report.action}" + (f", repeated {repeat} times" * (repeat > 1))]
    reward = report.reward
    lines.append(
        f"reward    {reward.low:.4g} to {reward.high:.4g}, mean {reward.mean:.4g}, "
        f"not 0 in {report.rewarded:.1%} of {report.steps} random steps"
    )
    if report.lengths:
        count, lengths, returns = len(report.lengths), report.lengths, report.returns
        lines.append(
            f"episodes  {count}, {min(lengths)} to {max(lengths)} steps, "
            f"return {min(returns):.4g} to {max(returns):.4g} "
            f"(mean {statistics.fmean(returns):.4g}), "
            f"{report.terminal} ended by the task, {count - report.terminal} by a time limit"
        )
    share = f"{report.resets:.1%} of all agent steps"
    lines.append(f"resets    {share}: reset rows count, as in the official code")
    lines.append(f"speed     {report.steps_per_second:,.0f} steps/s with 2 environments")
    lines += ["", *(f"! {finding}" for finding in report.findings or ["nothing is wrong"])]
    if not report.findings:
        lines[-1] = lines[-1].removeprefix("! ")
    return lines
