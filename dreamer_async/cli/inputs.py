"""Checks of what the user typed, before anything is created; each raises ConfigError."""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any, NamedTuple

from dreamer_async.config import (
    SUITES,
    Config,
    ConfigError,
    EnvConfig,
    override,
    parse_overrides,
    resolve,
)
from dreamer_async.machine import compiler, nvidia

EXTRAS = {
    "pictures": ("PIL", "pillow"),
    "plots": ("matplotlib", "matplotlib"),
    "search": ("optuna", "optuna"),
    "serve": ("textual_serve", "textual-serve"),
    "slurm": ("submitit", "submitit"),
    "tensorboard": ("tensorboard", "tensorboard"),
}
"""Extra -> (module it brings, its package)."""


def need_extra(extra: str, what: str) -> None:
    """Refuse what needs a package that is not installed, and say how to install it."""
    module, package = EXTRAS[extra]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{what} needs {package}: pip install 'dreamer-async[{extra}]'")


def as_overrides(flags: dict[str, Any]) -> list[str]:
    """Turn given flags into settings; None means not given."""
    return [f"{key}={value}" for key, value in flags.items() if value is not None]


class Wanted(NamedTuple):
    """What the words ask for."""

    config: Config
    device: str
    """Kind of device: cpu or cuda."""
    note: str
    """What had to be chosen differently here, for people, in lines; mostly empty."""


def configure(
    suite: str,
    task: str | None,
    size: str | None,
    flags: dict[str, Any],
    overrides: list[str] | None,
) -> Wanted:
    """Build the config that the words ask for, as far as this machine can do it."""
    settings = as_overrides(flags) + (overrides or [])
    name = resolve_task(suite, task)
    given = parse_overrides(settings)
    asked = resolve(suite, name, size=size, overrides=settings).train.device
    device = device_kind(asked)
    config = resolve(suite, name, size=size, overrides=settings, device=device)
    _check_resize(config.env)
    lacking = compiler.missing() if config.train.compile and "train.compile" not in given else ""
    idle = unused_gpu(asked, device)
    if not lacking:
        return Wanted(config, device, idle)
    note = f"{lacking}: updates run without compiling"
    note = "\n".join(filter(None, (idle, note)))
    return Wanted(override(config, ["train.compile=false"]), device, note)


def _check_resize(env: EnvConfig) -> None:
    from dreamer_async import envs

    try:
        envs.check_resize(env.suite, env.task, env.resize)
    except (ValueError, envs.MissingNeed) as error:
        raise ConfigError(str(error)) from None


def resolve_task(suite: str, task: str | None) -> str:
    """Canonical name of a task that can run here, the suite's default for None; ConfigError."""
    if suite not in SUITES:
        resolve(suite, "unknown")  # says which suites there are
    from dreamer_async import envs

    if suite == "gym" and task is not None and envs.is_code(task):
        envs.allow_code(task)  # whoever types it wants it
    try:
        name = envs.resolve_task(suite, envs.default_task(suite) if task is None else task)
    except envs.UnknownTask as error:
        raise ConfigError(str(error)) from None
    if lacking := envs.missing(suite):
        raise ConfigError(lacking[0])
    return name


def try_spaces(env: EnvConfig) -> None:
    """Refuse a gymnasium environment that no agent here can use, before anything is created.

    What it looks like is only known once it was built; EnvError if that fails.
    """
    if env.suite != "gym":
        return  # their spaces are known to fit
    from dreamer_async import envs

    try:
        envs.spec_of(env)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def name_again(env: EnvConfig, given: str | None) -> None:
    """Refuse the task of a run that is code (`module:factory`) unless `given` names it, too.

    What would be imported stands in a file, which may come from anyone.
    """
    from dreamer_async import envs

    if given is not None and given != env.task:
        raise ConfigError(f"--task {given} is not this run's task, which is {env.task}")
    if given is not None and envs.is_code(env.task):
        envs.allow_code(given)
    try:
        envs.resolve_task(env.suite, env.task)
    except envs.UnknownTask as error:
        raise ConfigError(str(error)) from None


def unused_gpu(asked: str, kind: str) -> str:
    """Why a run that asked for `auto` and got a CPU does not use the GPU that is here, if one is.

    Without it a run would train on the CPU for days and nobody would know.
    """
    return nvidia.unused() if (asked, kind) == ("auto", "cpu") else ""


def device_kind(device: str) -> str:
    """Resolve a device to cpu or cuda; raises ConfigError if it is not there.

    Importing torch takes seconds, so that it is left out where there cannot be a GPU.
    """
    no_driver = not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))
    if device == "cpu" or (device == "auto" and no_driver):
        return "cpu"
    from dreamer_async.machine.device import choose_device

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's lines about what `unused_gpu` says in one
            return choose_device(device).type
    except (ValueError, RuntimeError) as error:
        raise ConfigError(str(error)) from None
