"""The command line: which commands there are, and how each of them ends.

`dreamer-async --help` imports neither torch nor numpy. Mistakes of the user become one line on
stderr and exit code 2, and nothing has been created by then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from dreamer_async import (
    __version__,
    env_commands,
    exit_codes,
    machine_commands,
    process,
    run_commands,
    score_commands,
    train_commands,
)
from dreamer_async.config import ConfigError
from dreamer_async.inputs import refuse_shadowing
from dreamer_async.run_dir import RunInUse, RunNotFound
from dreamer_async.terminal import complain


def version() -> int:
    """Print the version."""
    print(f"dreamer-async {__version__}")
    return 0


app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Train, watch and use DreamerV3 agents.",
)
for name, command in {
    "train": train_commands.train,
    "resume": train_commands.resume,
    "watch": run_commands.watch,
    "stop": train_commands.stop,
    "eval": run_commands.evaluate,
    "scores": score_commands.scores,
    "dream": run_commands.dream,
    "envs": env_commands.list_envs,
    "plan": machine_commands.plan,
    "bench": machine_commands.bench,
    "doctor": machine_commands.doctor,
    "version": version,
}.items():
    app.command(name=name)(command)
app.command(hidden=True)(train_commands.trainer)
app.add_typer(env_commands.env_app, name="env")
app.add_typer(run_commands.runs_app, name="runs")


def _with_help(error: typer.TyperException) -> str:
    """What is wrong with the words, and where to read which would work."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "dreamer-async"
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code for the shell."""
    process.sleep_while_waiting()
    try:
        refuse_shadowing()
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        result = app(words, prog_name="dreamer-async", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.TyperException as error:
        return complain(_with_help(error))
    except (ConfigError, RunNotFound) as error:
        return complain(str(error))
    except RunInUse as error:
        return complain(str(error), exit_codes.CANNOT)
    except (KeyboardInterrupt, typer.Abort):
        return complain("interrupted", exit_codes.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        text = error.strerror if error.filename is None and error.strerror else str(error)
        return complain(text, exit_codes.of_system(error))
    except Exception as error:
        from dreamer_async.failures import answer, exit_code  # heavy, as what raised the error

        if exit_code(error) in (exit_codes.WRONG_INPUT, exit_codes.UNEXPECTED):
            raise  # wrong input was answered above: this is a mistake of ours
        return answer(error)
