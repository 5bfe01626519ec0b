"""`dreamer-async sweep`: many runs, on this machine or on a cluster.

Heavy imports are inside the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from dreamer_async.cli.inputs import (
    as_overrides,
    as_settings,
    check_devices,
    device_kind,
    need_extra,
    try_spaces,
)
from dreamer_async.cli.options import Device, EnvArgs, Kinds, Overrides, RunsDir, Steps
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.terminal import complain, on_terminal
from dreamer_async.cli.words.view import with_view
from dreamer_async.config import Config, ConfigError
from dreamer_async.config.schema import shown
from dreamer_async.machine.console import printable
from dreamer_async.parallel.shares import check
from dreamer_async.store.sizes import counted, in_words
from dreamer_async.store.sweep_dir import MOST_DEVICES, Sweep, SweepDir

if TYPE_CHECKING:
    from dreamer_async.sweep.cost import Cost
    from dreamer_async.sweep.local import Local
    from dreamer_async.sweep.slurm import Limits
    from dreamer_async.sweep.work import Standing

TIME = "4:00:00"
"""Time limit of a Slurm job where none is given."""


def sweep(
    what: Annotated[
        str, typer.Argument(metavar="SUITE|FILE|SWEEP", help="A suite, a TOML file, or a sweep.")
    ],
    task: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Tasks, separated by commas.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Sizes, separated by commas.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="How many (5), or which (3,5).")
    ] = None,
    env_args: EnvArgs = None,
    kinds: Kinds = None,
    steps: Steps = None,
    device: Device = None,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the sweep; default: sweep-SUITE.")
    ] = None,
    where: Annotated[
        str, typer.Option("--on", metavar="WHERE", help="local (this machine) or slurm.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Runs at a time; default: one for each GPU, or one."),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MOST_DEVICES,
            help="Let each run learn on N devices at once: GPUs, or groups of CPU threads.",
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            min=1, max=2000, metavar="N", help="Number of runs of a search; settings may be ranges."
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Continue failed runs as well.")] = False,
    drop_replay: Annotated[
        bool, typer.Option("--drop-replay", help="Delete the replay of each complete run.")
    ] = False,
    speeds: Annotated[
        bool | None,
        typer.Option(
            "--speeds/--no-speeds",
            help="Measure for a minute how long it will take; default: unless --dry-run.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Slurm partition.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help=f"Time limit of each Slurm job: 90, 8:00:00; default: {TIME}."
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, max=64, help="GPUs of each Slurm job; default: one for each device."),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="CPUs of each Slurm job; default: 4 for each device."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any other option of sbatch; may be repeated."),
    ] = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Train every task with every combination of settings and every seed.

    Run it again to continue: complete runs are skipped, interrupted ones resume.
    """
    if where not in ("local", "slurm"):
        raise ConfigError(f"--on {shown(where)}: expected local or slurm")
    remote = "" if where == "local" else "cpu" if gpus == 0 else "cuda"
    if not remote:
        _refuse_slurm(partition=partition, time=time, gpus=gpus, cpus=cpus, sbatch=sbatch)
    elif drop_replay:
        raise ConfigError(
            "--drop-replay is for --on local; when runs on a cluster are complete, "
            "`dreamer-async runs rm SWEEP --replay` deletes their replays"
        )
    else:
        need_extra("slurm", "sweep --on slurm")
    from dreamer_async.cli.words.sweep import Words, wanted
    from dreamer_async.sweep.work import stand

    flags = as_overrides(as_settings(steps=steps, device=device))
    settings = (*flags, *with_view(env_args, kinds, overrides))
    words = Words(task, size, seeds, settings)
    directory, plan = wanted(runs_root(runs_dir), what, words, name, search, remote=remote)
    before = directory.read() if directory.exists() else None
    plan = replace(plan, devices=devices or plan.devices)
    _check_devices(plan, remote)
    time = TIME if time is None else time
    limits = _limits(plan, time, partition, gpus, cpus, sbatch) if remote else None
    if plan.search:
        need_extra("search", "a search")
        if remote:
            raise ConfigError("a search runs on this machine: --on local")
    if speeds and (remote or plan.devices > 1):
        raise ConfigError("--speeds measures runs on one device of this machine: leave it out")
    standings = [stand(directory, job) for job in plan.jobs]
    print("\n".join(plan_lines(directory, plan, standings)), flush=True)
    todo = [each for each in standings if each.to_do or (retry and _again(each))]
    if devices is not None:
        _refuse_other_shares(directory, todo, devices)
    running = [each for each in standings if each.running]
    new = plan.trials - len(plan.jobs) if plan.search else 0
    at_once = jobs or _places(plan)
    if todo or new:
        here = not remote and plan.devices == 1
        measured = here and not dry_run if speeds is None else speeds
        cost = _cost(directory, plan, todo, new, speeds=measured)
        print(cost.line(at_once), flush=True)
        _ask(cost, sure=yes or dry_run)
    if dry_run:
        return 0
    if drop_replay:
        _drop_replays(directory, standings)
    if not (todo or running or new):
        return 0
    with _begun(directory, plan, before):
        if limits is not None:
            from dreamer_async.sweep.slurm import submit

            return submit(directory, [each.job for each in todo], limits, at_once=jobs)
        return _here(directory, plan, todo, running, at_once, drop_replay=drop_replay)


def _again(standing: Standing) -> bool:
    return standing.state == "failed" and not standing.reason


def _refuse_other_shares(directory: SweepDir, todo: Sequence[Standing], devices: int) -> None:
    """Refuse a number of devices for which runs that go on would lose their replays."""
    from dreamer_async.store.summary import load_config

    for run in (directory.run(each.job) for each in todo):
        had = run.shares(load_config(run).replay.directory) if run.exists() else 0
        if had not in (0, devices):
            raise ConfigError(
                f"{run.name} has {counted(had, 'replay')}, of no use to --devices {devices}: "
                f"leave it out, or delete them with `dreamer-async runs rm {directory.name}/"
                f"{run.name} --replay`"
            )


def _drop_replays(directory: SweepDir, standings: Sequence[Standing]) -> None:
    """Delete the replays of runs that are complete already; those of others go as they end."""
    from dreamer_async.store.removal import remove

    complete = [each.job for each in standings if each.state == "completed" and not each.running]
    freed = [remove(directory.run(job), only_replay=True) for job in complete]
    if any(freed):
        print(f"deleted {in_words(sum(freed))} of replays of complete runs", flush=True)


def _places(plan: Sweep) -> int:
    """As many as there are GPUs, or one."""
    from dreamer_async.sweep.local import visible_gpus

    devices = [t.partition("=")[2] for t in plan.settings if t.startswith("train.device=")]
    gpu = device_kind(devices[-1] if devices else "auto") == "cuda"
    return max(1, len(visible_gpus()) // plan.devices) if gpu else 1


def _refuse_slurm(**options: object) -> None:
    """Refuse what only Slurm would listen to."""
    if given := next((name for name, value in options.items() if value is not None), None):
        raise ConfigError(f"--{given} is for --on slurm")


def _check_devices(plan: Sweep, remote: str) -> None:
    """Refuse runs that so many devices of this machine, or of another one, cannot share."""
    if plan.devices > 1 and (wrong := _DIVIDED.intersection(_ranges(plan))):
        raise ConfigError(
            f"{min(wrong)}: a range has values that cannot be divided among {plan.devices} "
            "devices; name the values instead"
        )
    for config in _configs(plan) if plan.devices > 1 else ():
        if remote:
            check(config, plan.devices)
        else:
            check_devices(config, device_kind(config.train.device), plan.devices)


def _limits(
    plan: Sweep,
    time: str,
    partition: str | None,
    gpus: int | None,
    cpus: int | None,
    sbatch: list[str] | None,
) -> Limits:
    """What each Slurm job may take; ConfigError says what is wrong, before anything is made."""
    from dreamer_async.sweep.slurm import Limits

    limits = Limits(time, partition, *_share(plan, gpus, cpus), tuple(sbatch or ()))
    limits.parameters()
    return limits


def _share(plan: Sweep, gpus: int | None, cpus: int | None) -> tuple[int, int]:
    """GPUs and CPUs of each Slurm job, whose ranks divide them."""
    gpus = plan.devices if gpus is None else gpus
    cpus = 4 * plan.devices if cpus is None else cpus
    if plan.devices > 1 and gpus not in (0, plan.devices):
        raise ConfigError(
            f"--gpus {gpus}: a run on {plan.devices} devices takes {plan.devices}, or 0 to learn "
            "on CPUs"
        )
    if cpus < plan.devices:
        raise ConfigError(f"--cpus {cpus}: {plan.devices} devices need one each, at least")
    return gpus, cpus


def _cost(
    directory: SweepDir, plan: Sweep, todo: Sequence[Standing], new: int, *, speeds: bool
) -> Cost:
    from dreamer_async.sweep.cost import Todo, estimate
    from dreamer_async.sweep.work import config_of

    runs = [
        Todo(
            config_of(plan, each.job),
            1 - each.env_steps / each.steps if each.steps else 1.0,
            made=directory.run(each.job).exists(),
        )
        for each in todo
    ]
    if new:
        from dreamer_async.sweep.search import typical

        runs += [Todo(config_of(plan, typical(plan)), 1.0, made=False)] * new
    seen = {repr((run.config.env, run.config.model)): run.config for run in runs}
    for config in seen.values():
        try_spaces(config)
    return estimate(runs, directory.path.parent, speeds=speeds)


def _ask(cost: Cost, *, sure: bool) -> None:
    if sure or not cost.much:
        return
    if not on_terminal():
        raise ConfigError("a sweep of this size asks first, and there is no terminal: add --yes")
    typer.confirm("Begin?", abort=True)


@contextlib.contextmanager
def _begun(directory: SweepDir, plan: Sweep, before: Sweep | None) -> Iterator[None]:
    """Keep the sweep for this process, and on the disk, if it still is what it was before."""
    directory.path.mkdir(parents=True, exist_ok=True)
    with directory.lock():
        if (directory.read() if directory.exists() else None) != before:
            raise ConfigError(f"{directory.name} was changed meanwhile: give the command again")
        if not directory.exists() or directory.read() != plan:
            directory.write(plan)
        yield


def _here(
    directory: SweepDir,
    plan: Sweep,
    todo: Sequence[Standing],
    running: Sequence[Standing],
    at_once: int,
    *,
    drop_replay: bool,
) -> int:
    """Carry a sweep out on this machine; the exit code."""
    from dreamer_async.sweep.local import Listed, Local, line_printer, slots, visible_gpus

    say = line_printer()
    jobs = [each.job for each in todo]
    search = None
    if plan.search:
        from dreamer_async.sweep.search import Search

        search = Search(directory, jobs, say)
    kinds = {device_kind(config.train.device) for config in _configs(plan)}
    gpus = visible_gpus() if "cuda" in kinds else []
    places = slots(at_once, gpus, len(os.sched_getaffinity(0)), plan.devices)
    trained = [each.job for each in running]
    local = Local(directory, search or Listed(jobs), trained, say, drop_replay=drop_replay)
    print(f"watch it with `dreamer-async watch {directory.name}`", flush=True)
    asyncio.run(local.carry_out(places))
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
        _tell_end(directory, local, search.best() if search else None)
    if local.stopping:
        return 128 + local.signal if local.signal else 0
    return local.failed[0][1] if local.failed else 0


def _tell_end(directory: SweepDir, local: Local, best: tuple[str, float] | None) -> None:
    """Say which run was best, which failed, and how to continue."""
    if best is not None:
        print(f"best so far: {best[0]}, return {best[1]:.4g}", flush=True)
    for job, code in local.failed:
        complain(f"{job.name} failed (exit code {code}): {directory.run(job).log_path}", code)
    if local.stopping:
        print(f"stopped; continue with `dreamer-async sweep {directory.name}`", flush=True)


def _configs(plan: Sweep) -> list[Config]:
    """Settings of every run; of a search, with every value that a setting may have by name."""
    from dreamer_async.sweep.work import config_of

    jobs = [*plan.jobs]
    if plan.search:
        from dreamer_async.sweep.search import ranges, typical

        some = typical(plan)
        jobs += [some] + [
            replace(some, settings={**some.settings, key: choice})
            for key, each in ranges(plan).items()
            for choice in each.choices
        ]
    return [config_of(plan, job) for job in jobs]


def _ranges(plan: Sweep) -> list[str]:
    """Settings that a search chooses between two ends."""
    from dreamer_async.sweep.search import ranges

    return [key for key, each in ranges(plan).items() if not each.choices]


_DIVIDED = {"env.num_envs", "env.batch_size", "train.batch_size", "replay.capacity"}
"""Settings of which each rank has its share."""


def plan_lines(directory: SweepDir, plan: Sweep, standings: Sequence[Standing]) -> list[str]:
    """What a sweep is, and how far."""
    lines = [f"{directory.name}: {_count(plan)} of {plan.suite} in {directory.path}"]
    axes: dict[str, dict[str, None]] = {}
    for job in plan.jobs:
        axes.setdefault("task", {})[job.task] = None
        axes.setdefault("size", {})[job.size] = None
        if not plan.search:
            axes.setdefault("seed", {})[str(job.seed)] = None
            for key, value in job.settings.items():
                axes.setdefault(key, {})[value] = None
    for key, text in plan.search.items():
        axes.setdefault(key, {})[text] = None
    if plan.devices > 1:
        axes["devices of each run"] = {str(plan.devices): None}
    lines += [f"  {key:20} {', '.join(values)}" for key, values in axes.items()]
    if plan.settings:
        lines.append(f"  {'settings of all':20} {' '.join(plan.settings)}")
    states = Counter(each.state for each in standings)
    lines.append(f"  {', '.join(f'{n} {state}' for state, n in states.items()) or 'none made yet'}")
    for each in standings:
        if each.state == "failed":
            why = f": {each.reason}" if each.reason else " (--retry continues it)"
            lines.append(f"  {each.job.name} failed at step {each.env_steps:,}{why}")
    return [printable(line) for line in lines]


def _count(plan: Sweep) -> str:
    if plan.search:
        return f"a search of {plan.trials} runs"
    return counted(len(plan.jobs), "run")
