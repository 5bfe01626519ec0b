"""Checks of what the user typed, before anything is created; each raises ConfigError."""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dreamer_async.cli.paths import check_target, existing_directory
from dreamer_async.cli.words.task import find_task
from dreamer_async.config import (
    ON_A_CPU,
    SUITES,
    Config,
    ConfigError,
    EnvConfig,
    override,
    parse_overrides,
    resolve,
)
from dreamer_async.config.schema import shown
from dreamer_async.machine import compiler, nvidia
from dreamer_async.parallel.shares import check
from dreamer_async.parallel.world import World
from dreamer_async.store.run_dir import TRACKERS, RunDir

if TYPE_CHECKING:
    from dreamer_async.envs.spec import EnvSpec

EXTRAS = {
    "pictures": ("PIL", "pillow"),
    "video": ("av", "av"),
    "hub": ("huggingface_hub", "huggingface_hub"),
    "onnx": ("onnxruntime", "onnx, onnxscript and onnxruntime"),
    "plots": ("matplotlib", "matplotlib"),
    "search": ("optuna", "optuna"),
    "serve": ("textual_serve", "textual-serve"),
    "slurm": ("submitit", "submitit"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "mlflow": ("mlflow", "mlflow"),
}
"""Extra -> (module it brings, its package)."""

SOONER = (
    "-s optim.lr=1.6e-4, four times the paper's learning rate, learned sooner at size1m in all "
    "four tasks of DMC tried at both (docs/learning.md)"
)
"""Said at size1m and the paper's learning rate."""

FLAGS = {
    "steps": "train.steps",
    "updates": "train.updates",
    "seed": "train.seed",
    "ratio": "train.train_ratio",
    "device": "train.device",
    "precision": "train.precision",
    "threads": "train.threads",
    "sync": "train.sync",
    "compile": "train.compile",
    "num_envs": "env.num_envs",
    "resize": "env.resize",
    "repeat": "env.repeat",
    "env_args": "env.args",
}
"""Flags of commands, which are arguments in Python -> the settings that they are."""


def need_extra(extra: str, what: str) -> None:
    """Refuse what needs a package that is not installed, and say how to install it."""
    module, package = EXTRAS[extra]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{what} needs {package}: pip install 'dreamer-async[{extra}]'")


def only_with(partner: str, there: bool, **options: object) -> None:
    """Refuse options (by name) that were given, are no use without `partner`, and it is not there.

    Not given is None, False and "auto".
    """
    for name, value in options.items():
        if not there and value not in (None, False, "auto"):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect without {partner}")


def check_ending(path: Path, option: str, ending: str) -> None:
    """Refuse a file whose name says that it holds something else."""
    if path.suffix.lower() != ending:
        raise ConfigError(f"{option} needs a file that ends in {ending}, got {str(path)!r}")


def check_films(video: Path | None, gif: Path | None, *, overlay: bool = False) -> bool:
    """Refuse films that cannot be written, and tell whether any is wanted."""
    kinds = ((video, "--video", "video", ".mp4"), (gif, "--gif", "pictures", ".gif"))
    for path, option, extra, ending in kinds:
        if path is not None:
            check_ending(path, option, ending)
            need_extra(extra, option)
            check_target(path, option)
    if overlay:
        need_extra("pictures", "--overlay")
        if video is None and gif is None:
            raise ConfigError("--overlay needs --video FILE.mp4 or --gif FILE.gif")
    return video is not None or gif is not None


def wanted_trackers(
    names: list[str] | None, *, tensorboard: bool, run: RunDir | None = None
) -> list[str]:
    """The trackers of --log, and those that a run has already; refuses those that are not here."""
    wanted = [*(names or []), *["tensorboard"] * tensorboard]
    for name in wanted:
        if name not in TRACKERS:
            raise ConfigError(f"--log {shown(name)}: expected one of {', '.join(TRACKERS)}")
    had = [name for name in TRACKERS if run is not None and run.tracker(name).is_dir()]
    wanted = list(dict.fromkeys([*wanted, *had]))
    for name in wanted:
        need_extra(name, f"--log {name}")
    return wanted


def as_settings(*, replay_dir: str | Path | None = None, **flags: Any) -> dict[str, Any]:
    """Values of the settings that these flags are; None means not given."""
    where = None if replay_dir is None else existing_directory(str(replay_dir))
    return {FLAGS[name]: value for name, value in flags.items()} | {"replay.directory": where}


def as_overrides(flags: dict[str, Any]) -> list[str]:
    """Turn given flags into settings; None means not given."""
    return [f"{key}={value}" for key, value in flags.items() if value is not None]


def initial_weights(root: Path, init: str | None, parts: str | None) -> dict[str, Any]:
    """What --init and --init-parts set; CheckpointError if nothing verifies there."""
    if init is None:
        if parts is not None:
            raise ConfigError(f"--init-parts {parts} needs --init RUN")
        return {}
    from dreamer_async.store import checkpoint

    if (Path(init) / checkpoint.MANIFEST).is_file():
        path = Path(init).absolute()
        checkpoint.read(path)
    else:
        path = RunDir.find(root, init).path
        checkpoint.need(path)
    return {"train.init": str(path), "train.init_parts": parts}


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
    *,
    published: bool = False,
) -> Wanted:
    """Build the config that the words ask for, as far as this machine can do it."""
    settings = as_overrides(flags) + (overrides or [])
    suite, name = find_task(suite, task)
    given = parse_overrides(settings)
    for key in ("train.updates", "replay.source", "replay.source_actions"):
        if key in given:
            raise ConfigError(f"{key} is for recorded experience: see `dreamer-async learn --help`")
    if "train.init_parts" in given and not given.get("train.init"):
        raise ConfigError("train.init_parts needs train.init, as --init-parts needs --init RUN")
    build = partial(resolve, suite, name, size=size, overrides=settings, published=published)
    asked = build().train.device
    device = device_kind(asked)
    plan = "" if published or "train.steps" in given else _plan_on(device, suite)
    config = build(device=device, plan=plan)
    _check_resize(config.env)
    if config.train.sync and given.get("env.batch_size", 0) not in (0, config.env.num_envs):
        raise ConfigError("env.batch_size has no effect in lockstep (sync): leave it out")
    rate = "" if "optim.lr" in given else _other_rate(config)
    notes = [unused_gpu(asked, device), _other_plan(suite, plan), rate, _learns_nothing(config)]
    if given.get("train.compile") and device == "cpu":
        notes.append("--compile has no effect on a CPU")
    wanted = device == "cuda" and config.train.compile and "train.compile" not in given
    if wanted and (lacking := compiler.missing()):
        notes.append(f"{lacking}: updates run without compiling")
        config = override(config, ["train.compile=false"])
    return Wanted(config, device, "\n".join(filter(None, notes)))


def _plan_on(device: str, suite: str) -> str:
    """The suite whose plan is taken instead of this one's own, or nothing."""
    return ON_A_CPU.get(suite, "") if device == "cpu" else ""


def _other_plan(suite: str, plan: str) -> str:
    """Say whose plan was taken and how to get the suite's own."""
    if not plan:
        return ""
    steps, own = SUITES[plan]["train.steps"], SUITES[suite]["train.steps"]
    return (
        f"without a GPU {suite} takes {plan}'s plan of {steps:,} steps: hours instead of weeks; "
        f"for its own plan: --steps {own // 1_000_000}M"
    )


def _other_rate(config: Config) -> str:
    """Say that a suite's learning rate is not the paper's, or that a size wants a higher one."""
    paper, own = Config().optim.lr, config.optim.lr
    if own == paper:
        return SOONER if config.size == "size1m" else ""
    return (
        f"{config.env.suite} takes a learning rate of {own:g}; the paper's: -s optim.lr={paper:g}"
    )


def _learns_nothing(config: Config) -> str:
    """Say that a run ends before the replay holds what the first update waits for."""
    from dreamer_async.replay.setup import prefill_steps

    steps, many, first = config.train.steps, config.env.num_envs, prefill_steps(config)
    if math.ceil(steps / many) * many >= first:
        return ""
    return f"{steps:,} steps end before the first update, which comes at step {first:,}"


def _check_resize(env: EnvConfig) -> None:
    from dreamer_async import envs

    try:
        envs.check_resize(env.suite, env.task, env.resize)
    except (ValueError, envs.MissingNeed) as error:
        raise ConfigError(str(error)) from None


def try_spaces(config: Config) -> None:
    """Refuse what these networks cannot read or nothing can repeat, before anything is created.

    What gymnasium's look like is only known once one was built; EnvError if that fails.
    """
    from dreamer_async import envs

    env = config.env
    as_usual = env.suite not in ("gym", "session") and envs.View.of(env) == envs.View()
    if not as_usual or config.model != resolve(env.suite, env.task, size=config.size).model:
        readable(config)  # the presets' spaces and networks are known to fit


def readable(config: Config) -> EnvSpec:
    """What the environment looks like; ConfigError if the networks of a run cannot read it."""
    from dreamer_async import envs
    from dreamer_async.envs.spec import check_observations

    try:
        spec = envs.spec_of(config.env)
        check_observations(spec.obs, len(config.model.multipliers))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if any(obs.is_image for obs in spec.obs.values()):
        config.model.check_images()
    return spec


def check_devices(config: Config, kind: str, devices: int) -> None:
    """Raise ConfigError where a run cannot be shared among so many devices of a kind."""
    world = World.here()
    if devices > 1 and world.size > 1:
        raise ConfigError(
            f"torchrun has started {world.size} ranks already: leave out --devices, or torchrun"
        )
    here = devices if world.size == 1 else world.local_size
    check(config, max(devices, world.size))
    if kind != "cuda" or here == 1:
        return
    import torch

    if (there := torch.cuda.device_count()) < here:
        raise ConfigError(
            f"{here} ranks need a GPU each, and there {'is' if there == 1 else 'are'} {there}; "
            f"try --devices {there}, or --device cpu"
        )


def check_restarts(restarts: int, devices: int) -> None:
    """Raise ConfigError where nothing would start the ranks of a run again."""
    if restarts and World.here().size > 1:
        raise ConfigError("--max-restarts is torchrun's here: give it to torchrun")
    if restarts and devices == 1:
        raise ConfigError("--max-restarts needs --devices: it restarts the processes of such a run")


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
