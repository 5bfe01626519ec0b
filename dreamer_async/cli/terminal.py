"""The terminal in front of a command, if there is one."""

from __future__ import annotations

import os
import sys

from dreamer_async.machine.console import printable
from dreamer_async.store import exit_codes


def on_terminal() -> bool:
    """Tell whether a person sits there who can see a dashboard and answer questions."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def complain(message: str, code: int = exit_codes.WRONG_INPUT) -> int:
    """Print one line on stderr, and return the exit code that belongs to it."""
    _tell("error", message)
    return code


def warn(message: str) -> None:
    """Print one line on stderr about something that is not as it should be."""
    _tell("warning", message)


def _tell(level: str, message: str) -> None:
    print(f"{level}: {' '.join(printable(message).split())}", file=sys.stderr)
