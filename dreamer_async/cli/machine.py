"""Commands about this machine: `doctor`, `bench` and `plan`. Heavy imports are inside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dreamer_async.bench import ALONE, PARTS
from dreamer_async.cli import completion
from dreamer_async.cli.inputs import as_settings, configure, only_with, try_spaces
from dreamer_async.cli.options import (
    Compile,
    Device,
    EnvArgs,
    Json,
    Kinds,
    NumEnvs,
    Overrides,
    Precision,
    Published,
    Ratio,
    RunsDir,
    Size,
    Steps,
    Suite,
    SuiteOption,
    Task,
    Threads,
)
from dreamer_async.cli.paths import check_target, runs_root
from dreamer_async.cli.words.view import with_view
from dreamer_async.config import SUITES, ConfigError
from dreamer_async.machine import process


def doctor(
    as_json: Json = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Also compile something small.")
    ] = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Report what works on this machine."""
    from dreamer_async.cli.doctor import examine

    findings = examine(runs_root(runs_dir), compile_too=compile_)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for name, status, detail in findings:
            print(f"{status:8} {name:10} {detail}")
    return int(any(finding.status == "bad" for finding in findings))


def bench(
    part: Annotated[
        str,
        typer.Argument(
            metavar="PART",
            help=f"One of {', '.join((*PARTS, *ALONE))}, or all.",
            autocompletion=completion.parts,
        ),
    ] = "all",
    suite: SuiteOption = "",
    task: Task = None,
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    size: Size = None,
    num_envs: NumEnvs = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    compile_: Compile = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, max=3600, help="Seconds per part; default: 10.")
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Of the part dashboard: times to train in turn with and without one.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="Write a trace of some updates instead."),
    ] = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> int:
    """Measure how fast each part of a run is here, beside speeds of other machines."""
    if part not in (known := (*PARTS, *ALONE, "all")):
        hint = f"; for another suite: bench --suite {part}" if part.lower() in SUITES else ""
        raise ConfigError(f"unknown part {part!r} (known: {', '.join(known)}){hint}")
    only_with("the part dashboard", part == "dashboard", pairs=pairs)
    if trace is not None:
        if part not in ("all", "learner") or seconds is not None:
            raise ConfigError("--profile is of three updates: leave out PART and --seconds")
        check_target(trace, "--profile")
    suite = suite or ("toy" if part in ALONE else "atari")
    flags = as_settings(
        num_envs=num_envs,
        device=device,
        precision=precision,
        threads=threads,
        compile=compile_,
    )
    settings = with_view(env_args, kinds, overrides)
    config = configure(suite, task, size, flags, settings).config
    try_spaces(config)
    from dreamer_async.bench import measure, report

    process.prepare()
    if trace is not None:
        from dreamer_async import envs
        from dreamer_async.bench.profile import profile

        result = profile(config, envs.spec_of(config.env), trace)
        lines = report.profile_lines(result)
    else:
        result = measure(config, part, 10.0 if seconds is None else seconds, pairs or 0)
        lines = report.bench_lines(result, part)
    print(json.dumps(result, allow_nan=False) if as_json else "\n".join(lines))
    return 0


def plan(
    suite: Suite,
    task: Task = None,
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    size: Size = None,
    steps: Steps = None,
    num_envs: NumEnvs = None,
    ratio: Ratio = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    speeds: Annotated[
        bool,
        typer.Option("--speeds/--no-speeds", help="Measure for a minute how long it will take."),
    ] = True,
    published: Published = False,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
    overrides: Overrides = None,
) -> int:
    """Estimate what a run would need: memory, disk, hours. Nothing is created."""
    flags = as_settings(
        steps=steps,
        num_envs=num_envs,
        ratio=ratio,
        device=device,
        precision=precision,
        threads=threads,
    )
    settings = with_view(env_args, kinds, overrides)
    config, _, note = configure(suite, task, size, flags, settings, published=published)
    try_spaces(config)
    from dreamer_async.bench import report
    from dreamer_async.bench.plan import plan as work_out

    result = work_out(config, runs_root(runs_dir), speeds=speeds)
    lines = [*filter(None, [note]), *report.plan_lines(result)]
    print(json.dumps(result, allow_nan=False) if as_json else "\n".join(lines))
    return 0
