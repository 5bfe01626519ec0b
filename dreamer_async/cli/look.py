"""Commands that look at what a run does and knows: `watch`, `eval` and `dream`.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamer_async.cli import completion
from dreamer_async.cli.inputs import (
    check_ending,
    check_films,
    device_kind,
    name_again,
    need_extra,
    only_with,
    unused_gpu,
)
from dreamer_async.cli.options import (
    Gif,
    Graphics,
    Json,
    RunRef,
    RunsDir,
    TaskAgain,
    Video,
)
from dreamer_async.cli.paths import check_target, runs_root, unused
from dreamer_async.cli.terminal import warn
from dreamer_async.config import ConfigError
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir, find_runs

if TYPE_CHECKING:
    from dreamer_async.run.evaluate import Evaluation


def watch(
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Names or paths, or last.", autocompletion=completion.runs
        ),
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option(help="Write a picture of the dashboard (SVG) and exit.")
    ] = None,
    page: Annotated[str, typer.Option(metavar="PAGE", help="Page to open first.")] = "overview",
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the --screenshot; default: 120x40."),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it in a browser.")] = False,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of --serve; default: 8000.")
    ] = None,
    ascii_: Annotated[bool, typer.Option("--ascii", help="ASCII characters only.")] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Play films over ssh too.")] = False,
    graphics: Graphics = "auto",
    runs_dir: RunsDir = "runs",
) -> int:
    """Attach a dashboard to a live or finished run, or to a sweep.

    Curves of further runs are drawn over those of the first.
    """
    from dreamer_async.cli.launch import become_dashboard, find_shown

    if serve and screenshot is not None:
        raise ConfigError("--serve and --screenshot exclude each other")
    only_with("--screenshot", screenshot is not None, size=size)
    only_with("--serve", serve, port=port)
    only_with("a terminal", screenshot is None, animate=animate, graphics=graphics)
    only_with("a terminal", not serve, graphics=graphics)
    found = find_shown(runs_root(runs_dir), refs or ["last"])
    options = ["--ascii"] * ascii_ + ["--animate"] * animate
    options += ["--graphics", graphics] if graphics != "auto" else []
    options += ["--page", page] if page != "overview" else []
    if serve:
        need_extra("serve", "watch --serve")
        from dreamer_async.cli.serve import serve_dashboard

        return serve_dashboard(found, options, port or 8000)
    if screenshot is not None:
        check_target(screenshot, "--screenshot")
        options += ["--screenshot", str(screenshot), "--size", size or "120x40"]
    become_dashboard(found, options, terminal=screenshot is None)


def evaluate(
    ref: RunRef = "last",
    episodes: Annotated[
        int, typer.Option("--episodes", "-n", min=1, max=100_000, help="Episodes to play.")
    ] = 10,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of environments and actions.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto.")
    ] = "auto",
    best: Annotated[
        bool, typer.Option("--best", help="Use the checkpoint with the best training scores.")
    ] = False,
    longest: Annotated[
        int | None,
        typer.Option(
            "--longest",
            min=1,
            help="Agent steps after which an episode is cut off (100,000).",
            show_default=False,
        ),
    ] = None,
    video: Video = None,
    gif: Gif = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write score and value below the picture.")
    ] = False,
    fps: Annotated[
        int | None,
        typer.Option(min=1, max=120, help="Steps per second of a film; default: 15."),
    ] = None,
    task: TaskAgain = None,
    as_json: Json = False,
    runs_dir: RunsDir = "runs",
) -> int:
    """Play full episodes with the newest checkpoint of a run or sweep, and print scores."""
    filmed = check_films(video, gif, overlay=overlay)
    only_with("--video or --gif", filmed, fps=fps)
    runs = find_runs(runs_root(runs_dir), [ref])
    for run in runs:
        _name_again(run, task)
    if note := unused_gpu(device, device_kind(device)):
        print(note, file=sys.stderr, flush=True)
    from dreamer_async.run.evaluate import LONGEST
    from dreamer_async.run.evaluate import evaluate as play

    several = SweepDir.find(runs_root(runs_dir), ref) is not None
    if several and filmed:
        raise ConfigError(f"{ref} is a sweep, and a film shows one run: name it, {ref}/RUN")
    runs = [run for run in runs if not several or any(run.checkpoints.glob("step-*"))]
    if not runs:
        raise ConfigError(f"no run of {ref} has a checkpoint yet")
    options: dict[str, Any] = {"device": device, "best": best, "longest": longest or LONGEST}
    options["say"] = partial(print, file=sys.stderr, flush=True)
    results: list[dict[str, Any]] = []
    for run in runs:
        if filmed:
            looks = {"files": (video, gif), "fps": fps or 15, "overlay": overlay}
            played = _play_filmed(run.path, episodes, seed, **options, **looks)
        else:
            played = play(run.path, episodes, seed, **options)
        results.append(played.record())
        _warn_of_scores(played)
        if not as_json:
            _print_scores(played)
    if as_json:
        print(json.dumps(results if several else results[0], allow_nan=False))
    return 0


def _play_filmed(*words: Any, **options: Any) -> Evaluation:
    """Play and write a film of it; ConfigError where there is nothing to see."""
    from dreamer_async.share.reel import NoPicture, evaluate_filmed

    try:
        result, film = evaluate_filmed(*words, **options)
    except NoPicture as error:
        raise ConfigError(str(error)) from None
    print(film, file=sys.stderr, flush=True)
    return result


def _warn_of_scores(result: Evaluation) -> None:
    """Say which checkpoints were skipped, and which episodes did not end."""
    _warn_of_skipped(result.skipped)
    if cut := result.cut:
        warn(
            f"{cut} episode{'s' * (cut > 1)} did not end within {result.longest:,} steps and "
            "count only up to there; --longest changes the limit"
        )


def _print_scores(result: Evaluation) -> None:
    """What a run's checkpoint played, for people."""
    plural = "s" * (result.episodes != 1)
    print(f"{result.run} ({result.task}), {result.checkpoint}: {result.episodes} episode{plural}")
    print(f"after {result.env_steps:,} agent steps, {result.frames:,} frames")
    print("returns", " ".join(f"{score:g}" for score in result.scores))
    print(f"mean {result.mean:.2f}  median {result.median:.2f}  std {result.std:.2f}", flush=True)


def dream(
    ref: RunRef = "last",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The picture, as PNG.")] = None,
    gif: Gif = None,
    video: Video = None,
    numbers: Annotated[
        bool,
        typer.Option("--numbers", help="Say how well the next steps are predicted, in numbers."),
    ] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, max=16, help="Sequences to show; default: 3.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Images the model sees before it dreams; default: 5."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of sequences and samples.")
    ] = 0,
    fps: Annotated[
        int | None,
        typer.Option(min=1, max=120, help="Steps per second of a film; default: 6."),
    ] = None,
    task: TaskAgain = None,
    runs_dir: RunsDir = "runs",
) -> int:
    """Draw images of a run: real, reconstructed and dreamed. Or say in numbers what it foresees."""
    run = RunDir.find(runs_root(runs_dir), ref)
    _name_again(run, task)
    drawn = any(path is not None for path in (out, gif, video))
    if numbers and drawn:
        raise ConfigError("--numbers prints and draws nothing: leave out --out, --gif and --video")
    if numbers or not (drawn or _observes_images(run)):
        only_with("a picture", False, rows=rows, context=context, fps=fps)
        return _foresee(run, seed)
    need_extra("pictures", "dream")
    moving = check_films(video, gif)
    only_with("--video or --gif", moving, fps=fps)
    if out is None and not moving:
        out = unused(Path("dream.png"))
    if out is not None:
        check_ending(out, "--out", ".png")
        check_target(out, "--out")
    from dreamer_async.share.dream import draw

    shown = {"rows": rows or 3, "context": context or 5, "seed": seed}
    with _seen():
        skipped = () if out is None else draw(run, out, **shown)
        if moving:
            from dreamer_async.share.dream_film import film

            skipped = film(run, gif, video, **shown, fps=fps or 6)
    _warn_of_skipped(skipped)
    written = " and ".join(str(path) for path in (out, gif, video) if path is not None)
    print(f"wrote {written}: real, reconstructed and dreamed images of {run.name}")
    return 0


def _observes_images(run: RunDir) -> bool:
    from dreamer_async.run import saved_spec
    from dreamer_async.store import checkpoint
    from dreamer_async.store.summary import load_config

    manifest = checkpoint.newest_manifest(run.checkpoints)  # whoever draws reads the rest
    with _seen():
        spec = saved_spec.of(manifest, load_config(run).env)
    return any(obs.is_image for obs in spec.obs.values())


def _foresee(run: RunDir, seed: int) -> int:
    from dreamer_async.share import foresight

    with _seen():
        found, skipped = foresight.of_run(run, seed)
    _warn_of_skipped(skipped)
    print(f"{run.name}: how well it foresees its newest steps")
    print("\n".join(foresight.table(found)))
    return 0


@contextlib.contextmanager
def _seen() -> Iterator[None]:
    """A run in which there is nothing to see is a mistake of whoever asks."""
    from dreamer_async.replay.ring import RingMismatch

    try:
        yield
    except RingMismatch:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _name_again(run: RunDir, task: str | None) -> None:
    from dreamer_async.store.summary import load_config

    name_again(load_config(run).env, task)


def _warn_of_skipped(reasons: Sequence[str]) -> None:
    """Say that an older checkpoint was taken, and why."""
    for reason in reasons:
        warn(f"checkpoint skipped: {reason}")
