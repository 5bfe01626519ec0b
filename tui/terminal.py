"""What a terminal does to the dashboard by itself: signals, and going away."""

from __future__ import annotations

import asyncio
import ctypes
import locale
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANG_UP_SECONDS = 3.0
PR_SET_PDEATHSIG = 1  # from sys/prctl.h


def on_signals(interrupt: Callable[[], None], hang_up: Callable[[], None]) -> None:
    """Call these for SIGINT, and for SIGTERM and SIGHUP: Textual handles none of them itself.

    A process that started us and is killed counts as SIGHUP: it would have tidied up after us.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, hang_up)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    end_with_parent(signal.SIGHUP)


def end_with_parent(number: int, parent: int = 0) -> None:
    """Let the kernel send this signal when the process that started us has ended. Linux only.

    Ends at once if that was `parent`, and is gone already.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, number)
    if parent and os.getppid() != parent:
        sys.exit(0)


def is_gone() -> bool:
    """Tell whether there is no terminal any more; not everything that takes it sends SIGHUP."""
    try:
        termios.tcgetattr(0)
    except termios.error:
        return True
    return False


def has_unicode() -> bool:
    """Tell whether the terminal is said to understand UTF-8, whatever Python itself assumes."""
    return locale.getencoding().lower().replace("-", "") == "utf8"


def has_shell() -> bool:
    """Tell whether a shell started us as a job, so that it can continue what was stopped."""
    return os.getpgrp() != os.getsid(0)


def stop_job() -> None:
    """Stop every process of this job; returns when the shell continues it."""
    os.killpg(os.getpgrp(), signal.SIGSTOP)


@contextmanager
def drawn_on_terminal() -> Iterator[None]:
    """Send what goes to stderr to the terminal for a while: Textual draws there.

    So `2>errors.txt` gets the errors, and no dashboard.
    """
    if os.isatty(2) or not os.isatty(1):
        yield
        return
    sys.stderr.flush()
    errors = os.dup(2)
    os.dup2(1, 2)
    try:
        yield
    finally:
        os.dup2(errors, 2)
        os.close(errors)


def leave_soon(code: int) -> None:
    """End this process in a while, should the lost terminal keep the app from closing."""
    rescue = threading.Timer(HANG_UP_SECONDS, os._exit, (code,))
    rescue.daemon = True
    rescue.start()
