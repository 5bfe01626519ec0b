"""The command line: where its words go, and how each command ends.

`dreamer-async --help` imports neither torch nor numpy, and `watch` with nothing but names not even
the other commands. Mistakes of the user become one line on stderr and exit code 2, and nothing has
been created by then.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from dreamer_async.cli.paths import runs_root
from dreamer_async.cli.terminal import complain
from dreamer_async.config.schema import ConfigError
from dreamer_async.machine.console import clean_output, open_closed_streams
from dreamer_async.store import exit_codes
from dreamer_async.store.run_dir import RunNotFound
from dreamer_async.store.run_lock import RunInUse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code for the shell."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    open_closed_streams()
    with clean_output():
        return _answered(words)


def _answered(words: Sequence[str]) -> int:
    """Run a command, and say in words what went wrong."""
    try:
        if words[0] == "watch" and not any(word.startswith("-") for word in words):
            _watch(words[1:] or ["last"])
        return _command(words)
    except (ConfigError, RunNotFound) as error:
        return complain(str(error))
    except RunInUse as error:
        return complain(str(error), exit_codes.CANNOT)
    except KeyboardInterrupt:
        return complain("interrupted", exit_codes.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return complain(_said(error), exit_codes.of_system(error))
    except Exception as error:
        from dreamer_async.run.failures import answer, exit_code  # heavy, as what raised the error

        if exit_code(error) in (exit_codes.WRONG_INPUT, exit_codes.UNEXPECTED):
            traceback.print_exc()  # wrong input was answered above: this is a mistake of ours
            return exit_codes.UNEXPECTED
        return answer(error)


def _said(error: OSError) -> str:
    """The reason in words, after the file that it is about; no number of the system."""
    if not error.strerror:
        return str(error)
    about = [repr(str(name)) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*about, error.strerror])


def _watch(names: Sequence[str]) -> None:
    """Become the dashboard of these runs without a parser, whose import would delay it."""
    from dreamer_async.cli.launch import become_dashboard, find_shown

    root = runs_root(os.environ.get("DREAMER_RUNS_DIR") or "runs")
    become_dashboard(find_shown(root, names))


def _command(words: Sequence[str]) -> int:
    from dreamer_async.machine import process

    process.before_torch()
    from dreamer_async.cli.commands import run

    return run(words)
