"""Commands that take a trained agent elsewhere: `export`, `push`, and `play` inside it.

Heavy imports are inside the commands.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamer_async.cli.inputs import name_again, need_extra, only_with, readable
from dreamer_async.cli.options import Graphics, RunRef, RunsDir, TaskAgain
from dreamer_async.cli.paths import check_target, runs_root
from dreamer_async.cli.terminal import complain, on_terminal, warn
from dreamer_async.config import ConfigError
from dreamer_async.store import exit_codes
from dreamer_async.store.run_dir import RunDir

if TYPE_CHECKING:
    from dreamer_async.play.world import World
    from dreamer_async.store.checkpoint import Checkpoint

EPISODES = 10
Best = Annotated[
    bool, typer.Option("--best", help="Use the checkpoint with the best training scores.")
]
Episodes = Annotated[
    int | None,
    typer.Option(
        "--episodes",
        "-n",
        min=0,
        max=1000,
        help=f"Episodes to play for the model card; default: {EPISODES}.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of environments and actions.")]


def export(
    ref: RunRef = "last",
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE.onnx", help="The policy as ONNX.")
    ] = None,
    safetensors: Annotated[
        Path | None,
        typer.Option("--safetensors", metavar="DIR", help="Weights with a model card."),
    ] = None,
    best: Best = False,
    episodes: Episodes = None,
    seed: Seed = 0,
    task: TaskAgain = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Write a run's policy as ONNX, or its weights with a model card."""
    run = _run(ref, task, runs_dir)
    if onnx is None and safetensors is None:
        raise ConfigError("say what to export: --onnx FILE.onnx, --safetensors DIR, or both")
    only_with("--safetensors", safetensors is not None, episodes=episodes)
    episodes = EPISODES if episodes is None else episodes
    if safetensors is not None:
        _need_environment(run, episodes)
    if onnx is not None:
        need_extra("onnx", "--onnx")
        check_target(onnx, "--onnx")
    if safetensors is not None:
        _weights(run, safetensors, best=best, episodes=episodes, seed=seed)
        print(f"wrote {safetensors}: weights of {run.name} with a model card")
    if onnx is not None:
        from dreamer_async.share.onnx import STEPS, DifferentPolicy
        from dreamer_async.share.onnx import export as to_onnx
        from dreamer_async.store import checkpoint

        found = checkpoint.need(run.path, of_best=best)
        _warn(found.skipped)
        _check_environment(found)
        try:
            done = to_onnx(found, onnx, seed)
        except DifferentPolicy as error:
            return complain(f"{onnx} was not written: {error}", exit_codes.UNEXPECTED)
        print(
            f"wrote {onnx}: {done.bytes / 1e6:.1f} MB; onnxruntime and PyTorch differ by at most "
            f"{done.difference:.1g} over {STEPS} steps"
        )
    return 0


def push(
    ref: Annotated[str, typer.Argument(metavar="RUN", help="A run's name or path, or last.")],
    name: Annotated[str, typer.Argument(metavar="hf://USER/NAME", help="Repository to upload to.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private if it is new.")
    ] = False,
    best: Best = False,
    episodes: Episodes = None,
    seed: Seed = 0,
    task: TaskAgain = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Upload a run's weights with a model card to the Hugging Face hub."""
    from dreamer_async.run import hub

    run = _run(ref, task, runs_dir)
    try:
        hub.parse(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    need_extra("hub", "push")
    episodes = EPISODES if episodes is None else episodes
    _need_environment(run, episodes)
    from dreamer_async.share.push import PushFailed
    from dreamer_async.share.push import push as upload

    try:
        _warn(upload(run, name, best=best, episodes=episodes, seed=seed, private=private))
    except PushFailed as error:
        return complain(f"nothing was pushed: {error}", exit_codes.CANNOT)
    print(f'pushed {run.name}: dreamer_async.load("{name}") takes it')
    return 0


def _run(ref: str, task: str | None, runs_dir: str) -> RunDir:
    from dreamer_async.store.summary import load_config

    run = RunDir.find(runs_root(runs_dir), ref)
    name_again(load_config(run).env, task)
    return run


def _need_environment(run: RunDir, episodes: int) -> None:
    """Refuse to write a card where its environment cannot be built, or there is none to play in."""
    from dreamer_async.store.summary import load_config

    config = load_config(run)
    if episodes and config.env.suite == "session":
        raise ConfigError(
            f"{run.name} is a session and has no environment to play in for the model card: "
            "--episodes 0 leaves that out"
        )
    readable(config)


def _weights(run: RunDir, out: Path, *, best: bool, episodes: int, seed: int) -> None:
    from dreamer_async.share.weights import export as write

    _warn(write(run, out, best=best, episodes=episodes, seed=seed))


def _check_environment(found: Checkpoint) -> None:
    """Raise ConfigError where the environment is not the one that a checkpoint was trained in."""
    from dreamer_async.config import from_dict
    from dreamer_async.run import saved_spec
    from dreamer_async.run.evaluate import check_same

    config = from_dict(found.manifest["config"])
    now, before = readable(config), saved_spec.decode(found.manifest, config.env)
    if before is not None:  # checkpoints of earlier versions do not say
        check_same(before, now)


def _warn(reasons: tuple[str, ...]) -> None:
    for reason in reasons:
        warn(f"checkpoint skipped: {reason}")


def play(
    ref: RunRef = "last",
    real: Annotated[
        bool,
        typer.Option("--real", help="Show a real environment beside it, given the same actions."),
    ] = False,
    best: Best = False,
    seed: Seed = 0,
    graphics: Graphics = "auto",
    task: TaskAgain = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Play inside a run's world model: keys are actions, the decoder is the screen."""
    run = _run(ref, task, runs_dir)
    if not on_terminal():
        raise ConfigError("play needs a terminal")
    from dreamer_async.play import app
    from dreamer_async.play.world import reality
    from dreamer_async.share.dream import NothingToSee
    from dreamer_async.store import checkpoint

    how = app.graphics(graphics)
    found = checkpoint.need(run.path, of_best=best)
    _warn(found.skipped)
    world = _world(run, found, seed)
    try:
        with ExitStack() as stack:
            there = stack.enter_context(reality(world.config, seed)) if real else None
            app.play(world, there, how)
    except NothingToSee as error:
        raise ConfigError(str(error)) from None
    return 0


def _world(run: RunDir, found: Checkpoint, seed: int) -> World:
    """The world model of a checkpoint; ConfigError if it shows nothing or does not fit its task."""
    from dreamer_async.play.world import World

    _check_environment(found)
    try:
        return World(run, found, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
