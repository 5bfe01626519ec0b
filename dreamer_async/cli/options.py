"""Options that several commands share, as typer wants them.

Numbers are text here: `-s`, flags and presets are checked by one and the same parser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dreamer_async.cli import completion
from dreamer_async.config import SIZES
from dreamer_async.store.run_dir import TRACKERS


def given(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands among the words of this very command."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _as_above(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Let `GROUP --option x COMMAND` be `GROUP COMMAND --option x`: what the command says wins.

    A default map would not do: the environment variable of an option comes before it.
    """
    above: Any = context.parent  # typer hides its class
    name = parameter.name or ""
    if above is None or given(context, name) or not given(above, name):
        return value
    return above.params[name]


RunsDir = Annotated[
    str,
    typer.Option(
        "--runs-dir",
        metavar="DIR",
        envvar="DREAMER_RUNS_DIR",
        callback=_as_above,
        help="Directory that holds all runs.",
    ),
]
RunRef = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's name or path, or last.", autocompletion=completion.runs
    ),
]
RunRefs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Names or paths.", autocompletion=completion.runs),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Any other setting; may be repeated.",
        autocompletion=completion.settings,
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        max=1024,
        help="Learn on N devices of this machine at once: GPUs, or groups of CPU threads.",
    ),
]
DevicesAgain = Annotated[
    int | None,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        max=1024,
        help="Continue on N devices of this machine; default: as many as before.",
    ),
]
MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts",
        metavar="N",
        min=0,
        help="With --devices: restart up to N times after the death of a process.",
    ),
]
Suite = Annotated[
    str,
    typer.Argument(
        metavar="SUITE",
        help="A suite (`envs` lists them), SUITE/TASK, a Gymnasium id, or module:factory.",
        autocompletion=completion.suites,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Task of the suite, such as breakout.",
        autocompletion=completion.tasks,
    ),
]
TaskAgain = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="Confirm the run's task if it is module:factory."),
]
EnvArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--env-arg",
        metavar="KEY=VALUE",
        help="Argument for the environment's constructor; may be repeated.",
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--as",
        metavar="KEY=KIND",
        help="Read an observation key as image, vector, category or category:COUNT, or leave it "
        "out (hidden); may be repeated.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"One of {', '.join(SIZES)}.", autocompletion=completion.sizes
    ),
]
NumEnvs = Annotated[
    str | None, typer.Option("--envs", metavar="N", help="Number of parallel environments.")
]
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Compile the update (GPUs only).")
]
Seed = Annotated[
    str | None, typer.Option(metavar="N", help="Seed for networks, sampling and environments.")
]
ReplayDir = Annotated[
    str | None, typer.Option("--replay-dir", metavar="DIR", help="Directory for the replay file.")
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name the run after this instead of its task.")
]
Published = Annotated[
    bool,
    typer.Option("--published", help="Use protocol, size and ratio of the published curves."),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Print lines instead of showing the dashboard.")
]
Graphics = Annotated[
    str,
    typer.Option(metavar="HOW", help="Pictures: auto, kitty or blocks."),
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="The same as --log tensorboard.")]
Log = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="NAME", help=f"Also log to {', '.join(TRACKERS)}; repeatable."),
]
Init = Annotated[
    str | None,
    typer.Option("--init", metavar="RUN", help="Start from the weights of a run or checkpoint."),
]
InitParts = Annotated[
    str | None,
    typer.Option(
        "--init-parts", metavar="PARTS", help="Which weights to take: all (default) or world_model."
    ),
]
Video = Annotated[
    Path | None, typer.Option("--video", metavar="FILE.mp4", help="Write a film as MP4.")
]
Gif = Annotated[Path | None, typer.Option("--gif", metavar="FILE.gif", help="Write a film as GIF.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=_as_above)]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto.")]
SuiteOption = Annotated[
    str,
    typer.Option(
        "--suite", metavar="SUITE", help="Suite to measure.", autocompletion=completion.suites
    ),
]
Steps = Annotated[
    str | None, typer.Option("--steps", metavar="N", help="End after this many agent steps.")
]
Ratio = Annotated[
    str | None,
    typer.Option("--ratio", metavar="X", help="Train ratio: replayed steps per agent step."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="NAME", help="float32, bfloat16, bfloat16-dense, mixed or auto."
    ),
]
Threads = Annotated[
    str | None, typer.Option("--threads", metavar="N", help="CPU threads of the learner.")
]
