"""What a terminal does to the dashboard by itself: signals, and going away."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import threading
from collections.abc import Callable

HANG_UP_SECONDS = 3.0


def on_signals(terminate: Callable[[], None], hang_up: Callable[[], None]) -> None:
    """Call these for SIGINT and SIGTERM, and for SIGHUP: Textual handles none of them itself."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, terminate)
    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGHUP, hang_up)


def is_gone() -> bool:
    """Tell whether there is no terminal any more; not everything that takes it sends SIGHUP."""
    try:
        termios.tcgetattr(0)
    except termios.error:
        return True
    return False


def leave_soon(code: int) -> None:
    """End this process in a while, should the lost terminal keep the app from closing."""
    rescue = threading.Timer(HANG_UP_SECONDS, os._exit, (code,))
    rescue.daemon = True
    rescue.start()
