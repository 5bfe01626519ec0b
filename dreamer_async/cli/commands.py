"""The commands there are, and what becomes of words that fit none of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any

import typer
import typer.main

from dreamer_async import __version__
from dreamer_async.cli import (
    demo,
    envs,
    learn,
    look,
    machine,
    runs,
    scores,
    settings,
    sharing,
    sweep,
    train,
)
from dreamer_async.cli.terminal import complain
from dreamer_async.store import exit_codes


def version() -> int:
    """Print the version."""
    print(f"dreamer-async {__version__}")
    return 0


app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def dreamer_async(
    _: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_say_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Train, watch and use DreamerV3 agents."""


for name, command in {
    "demo": demo.demo,
    "train": train.train,
    "learn": learn.learn,
    "resume": train.resume,
    "sweep": sweep.sweep,
    "watch": look.watch,
    "stop": train.stop,
    "eval": look.evaluate,
    "scores": scores.scores,
    "curves": scores.curves,
    "dream": look.dream,
    "play": sharing.play,
    "export": sharing.export,
    "push": sharing.push,
    "envs": envs.list_envs,
    "settings": settings.settings,
    "plan": machine.plan,
    "bench": machine.bench,
    "doctor": machine.doctor,
    "version": version,
}.items():
    app.command(name=name)(command)
app.command(hidden=True)(train.trainer)
app.add_typer(envs.env_app, name="env")
app.add_typer(runs.runs_app, name="runs")


def _with_help(error: typer.TyperException, words: Sequence[str]) -> str:
    """What is wrong with the words, and where to read which would work."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else " ".join(["dreamer-async", *_named(words)])
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def _named(words: Sequence[str]) -> Iterator[str]:
    """The words at the beginning that name a command."""
    command = parser()
    for word in words:
        if (command := getattr(command, "commands", {}).get(word)) is None:
            return
        yield word


@cache
def parser() -> Any:
    """What parses the words of all commands: reading their signatures takes longer than a parse."""
    return typer.main.get_command(app)


def run(words: Sequence[str]) -> int:
    """Run the command that the words name; what goes wrong in it is the caller's to tell."""
    try:
        result = parser()(list(words), prog_name="dreamer-async", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        return complain(_with_help(error, words))
    except typer.Abort:
        return complain("interrupted", exit_codes.INTERRUPTED)
