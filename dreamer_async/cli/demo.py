"""`dreamer-async demo`: the shortest way to see an agent learn, and what it dreams.

Heavy imports are inside the command.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from dreamer_async.cli.inputs import as_settings, configure, wanted_trackers
from dreamer_async.cli.new_run import check_room, create_run
from dreamer_async.cli.options import Device, Log, Plain, RunsDir
from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.train import start
from dreamer_async.config import ConfigError
from dreamer_async.config.schema import shown
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import summarize

TASKS = {
    "seek": ("seek_pixels", "a walker goes to a goal and stays there"),
    "catch": ("catch_pixels", "a paddle catches a falling ball"),
}
SETTINGS = (
    *("train.batch_size=8", "train.batch_length=16", "train.train_ratio=64", "env.num_envs=8"),
    "optim.lr=4e-4",
)
"""Small batches and ten times the learning rate of the paper: it is to be seen within minutes."""
STEPS = {"seek": 3000, "catch": 8000}
EPISODES = 50


def demo(
    task: Annotated[
        str, typer.Option(metavar="NAME", help=f"What is learned: {' or '.join(TASKS)}.")
    ] = "seek",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the run.")] = 0,
    device: Device = None,
    plain: Plain = False,
    log: Log = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Watch a small agent learn a task from images within minutes, and see what it dreams."""
    if task not in TASKS:
        raise ConfigError(f"--task {shown(task)}: expected {' or '.join(TASKS)}")
    name, what = TASKS[task]
    flags = as_settings(steps=STEPS[task], seed=seed, device=device)
    config, _, note = configure("toy", name, "size1m", flags, list(SETTINGS))
    trackers = wanted_trackers(log, tensorboard=False)
    note = "\n".join(filter(None, [note, check_room(config, runs_root(runs_dir))]))
    run, _ = create_run(runs_root(runs_dir), "demo", config, trackers=trackers)
    for line in (*_about(what, name), *note.splitlines()):
        print(line, flush=True)
    code = start(run, plain=plain, resume=False)
    if code == 0 and summarize(run).state == "completed":
        _conclude(run, name)
    return code


def _about(what: str, name: str) -> list[str]:
    random, best = _known(name)
    return [
        f"{what}, seen as images of 32x32 pixels: chance scores {random:g}, the best is {best:g}",
        "a few minutes on one core, under 0.1 GB of disk; on the dashboard, 4 shows what it dreams "
        "and ? lists all keys; when the run has ended, q closes it, and the agent is scored",
    ]


def _known(name: str) -> tuple[float, float]:
    """What random play scores on average, and the best score there is."""
    from dreamer_async.envs.suites.toy_tasks import TOYS

    return TOYS[name].random_return, TOYS[name].optimum


def _conclude(run: RunDir, name: str) -> None:
    """Score the agent, film its dreams, and say what can be done with it."""
    from dreamer_async.run.evaluate import evaluate

    random, best = _known(name)
    mean = evaluate(run.path, EPISODES, device="cpu").mean
    print(f"{EPISODES} episodes: mean {mean:.2f} (chance {random:g}, best {best:g})")
    if find_spec("PIL") is not None:
        from dreamer_async.share.dream_film import film

        film(run, run.pictures / "dream.gif")
        print(f"wrote {run.pictures / 'dream.gif'}: real, reconstructed and dreamed images")
    print(f"dreamer-async play {run.name}: play inside its dream, right here")
    print(f"dreamer-async watch {run.name}: the dashboard again")
    print("dreamer-async train CartPole-v1: the next thing to try")
