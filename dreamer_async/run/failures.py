"""How a run or a command that failed ends: the exit code, and what a person is told."""

from __future__ import annotations

import sys
import traceback

from dreamer_async.config import ConfigError
from dreamer_async.envs.vector import EnvError
from dreamer_async.machine.device_errors import is_out_of_memory
from dreamer_async.parallel.link import RankFailed, RankLost, RanksDiffer
from dreamer_async.replay.ring import RingMismatch
from dreamer_async.run.learner import Diverged
from dreamer_async.store import checkpoint, exit_codes
from dreamer_async.store.checkpoint import CheckpointError, NotFinite
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.run_lock import RunInUse

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, exit_codes.WRONG_INPUT),
    (NotFinite, exit_codes.DIVERGED),
    (CheckpointError, exit_codes.UNUSABLE),
    (RingMismatch, exit_codes.UNUSABLE),
    (EnvError, exit_codes.ENVIRONMENT),
    (Diverged, exit_codes.DIVERGED),
    (RankLost, exit_codes.RANK),
    (RanksDiffer, exit_codes.RANK),
    (RunInUse, exit_codes.CANNOT),
    (ValueError, exit_codes.WRONG_INPUT),
)
"""The first kind that fits counts."""
SAID = 3
"""Sentences of torch about a full memory that are passed on; pages may follow."""


def answer(error: BaseException, run: RunDir | None = None) -> int:
    """Say on stderr what went wrong, with a traceback if nobody foresaw it; the exit code."""
    code = exit_code(error)
    if code == exit_codes.UNEXPECTED:
        traceback.print_exception(error)
    print(f"error: {describe(error, run)}", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int:
    """The documented exit code of an error; 1 for one that nobody expected."""
    if isinstance(error, RankFailed):
        return error.code
    if is_out_of_memory(error):
        return exit_codes.MEMORY
    if isinstance(error, OSError):
        return exit_codes.of_system(error)
    found = (code for kind, code in EXIT_CODES if isinstance(error, kind))
    return next(found, exit_codes.UNEXPECTED)


def describe(error: BaseException, run: RunDir | None = None) -> str:
    """What to tell a person, in one line, of an error that ended a command or this run."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, RingMismatch):
        return f"{text}; `resume --drop-replay` continues with an empty replay"
    if isinstance(error, Diverged | NotFinite) and run is not None:
        return f"{text}; {_what_stands(run)}"
    if isinstance(error, RankFailed) or exit_code(error) != exit_codes.MEMORY:
        return text
    said = ". ".join(text.splitlines()[0].split(". ")[:SAID])
    smaller = "Try a smaller --size, or -s train.batch_size=N"
    if run is None:
        return f"out of memory. {smaller} ({said})"
    if _saved(run):
        smaller = "Try a smaller --size, or `resume` with -s train.batch_size=N"
    return f"out of memory; {_what_stands(run)}. {smaller} ({said})"


def _what_stands(run: RunDir) -> str:
    return "the last checkpoint is intact" if _saved(run) else "no checkpoint has been saved yet"


def _saved(run: RunDir) -> bool:
    return any(checkpoint.candidates(run.checkpoints))
