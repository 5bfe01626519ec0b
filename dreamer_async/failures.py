"""How a run or a command that failed ends: the exit code, and what a person is told."""

from __future__ import annotations

import sys
import traceback

import torch

from dreamer_async import exit_codes
from dreamer_async.checkpoint import CheckpointError
from dreamer_async.config import ConfigError
from dreamer_async.learner import Diverged
from dreamer_async.ring import RingMismatch
from dreamer_async.run_lock import RunInUse
from envs.vector import EnvError

CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""What torch says, as a plain RuntimeError, when the main memory is full."""
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, exit_codes.WRONG_INPUT),
    (CheckpointError, exit_codes.UNUSABLE),
    (RingMismatch, exit_codes.UNUSABLE),
    (EnvError, exit_codes.ENVIRONMENT),
    (Diverged, exit_codes.DIVERGED),
    (torch.OutOfMemoryError, exit_codes.MEMORY),
    (MemoryError, exit_codes.MEMORY),
    (RunInUse, exit_codes.CANNOT),
    (ValueError, exit_codes.WRONG_INPUT),
)
"""The first kind that fits counts."""


def answer(error: BaseException) -> int:
    """Say on stderr what went wrong, with a traceback if nobody foresaw it; the exit code."""
    code = exit_code(error)
    if code == exit_codes.UNEXPECTED:
        traceback.print_exception(error)
    print(f"error: {describe(error)}", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int:
    """The documented exit code of an error; 1 for one that nobody expected."""
    if isinstance(error, RuntimeError) and CPU_OUT_OF_MEMORY in str(error):
        return exit_codes.MEMORY
    if isinstance(error, OSError):
        return exit_codes.of_system(error)
    found = (code for kind, code in EXIT_CODES if isinstance(error, kind))
    return next(found, exit_codes.UNEXPECTED)


def describe(error: BaseException) -> str:
    """What to tell a person, in one line."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, RingMismatch):
        return f"{text}; `resume --drop-replay` goes on with an empty replay"
    if exit_code(error) != exit_codes.MEMORY:
        return text
    first = text.splitlines()[0]
    return (
        "out of memory; the last checkpoint stands. Try a smaller --size, or `resume` with "
        f"-s train.batch_size=N ({first})"
    )
