"""What every dashboard is: its looks and room, a terminal that is slow or goes away, its faults."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar, TypeVar

from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size

from dreamer_async.tui import terminal
from dreamer_async.tui.driver import LeanDriver
from dreamer_async.tui.themes import THEMES
from dreamer_async.tui.widgets.panel import COMPONENTS

POLL_SECONDS = 0.25
PAINT_SECONDS = 0.5
"""Between two looks at what is new."""
BUSY_SECONDS = 0.02
"""While history is read, a piece of work after which keys and paint get their turn."""
_WIDTHS = [(0, "-tiny"), (60, "-narrow"), (100, "-normal"), (160, "-wide")]
_HEIGHTS = [(0, "-low"), (32, "-tall"), (52, "-high")]

Result = TypeVar("Result")


class TerminalApp(App[Result]):
    """Reads a little at a time and draws a frame when the terminal has the one before."""

    TITLE = "dreamer-async"
    CSS_PATH = "dashboard.tcss"
    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS)
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = _WIDTHS
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = _HEIGHTS

    def __init__(self, *, clock: Callable[[], float], on_terminal: bool, ascii: bool) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
        self.clock = clock
        self.ascii = ascii
        """Draw with ASCII characters only."""
        self._on_terminal = on_terminal
        self._waiting = ExitStack()
        """Closed, and so the screen drawn, when the terminal has caught up."""
        self._drawn_size: Size | None = None
        """Of the screen when the waiting began; None while nobody waits."""

    @abstractmethod
    def read_piece(self) -> bool:
        """Fold the next piece of what is followed; tells whether there is more."""

    @abstractmethod
    def interrupted(self) -> None:
        """Do what SIGINT asks for."""

    @abstractmethod
    def hang_up(self) -> None:
        """Leave because the terminal went away; `terminal.leave_soon` sees to it in any case."""

    # -- life --------------------------------------------------------------------------------

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give the themes of Textual the colours that only ours define."""
        return dict(THEMES[0].variables)

    def on_mount(self) -> None:
        self.set_class(self.ascii, "-ascii")
        if self._on_terminal:
            terminal.on_signals(self.interrupted, self.hang_up)
            self.set_interval(1.0, self._check_terminal)

    def _check_terminal(self) -> None:
        """Leave when the terminal is gone: Textual would spin for ever."""
        if terminal.is_gone():
            self.hang_up()

    async def follow(self) -> None:
        """Read for ever, a little at a time, so that keys and paint come in between."""
        while True:
            deadline = time.monotonic() + BUSY_SECONDS
            while (more := self.read_piece()) and time.monotonic() < deadline:
                pass
            await asyncio.sleep(0.005 if more else POLL_SECONDS)

    def action_theme(self) -> None:
        """Choose the next colours."""
        names = [theme.name for theme in THEMES]
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]

    # -- a slow line -------------------------------------------------------------------------

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, in fewer bytes where that is a terminal."""
        chosen = super().get_driver_class()
        return LeanDriver if chosen is LinuxDriver else chosen

    def post_display_hook(self) -> None:
        """Hold the next frame back while too much of this one is on its way."""
        driver = self._driver
        if isinstance(driver, LeanDriver) and driver.behind and self._drawn_size is None:
            self._drawn_size = self.size
            self._waiting.enter_context(self.batch_update())
            driver.caught_up = self._caught_up
            driver.ask()

    def _caught_up(self) -> None:
        """Draw what changed meanwhile; all of it if the terminal has another size now."""
        if self._drawn_size is None:
            return
        resized, self._drawn_size = self._drawn_size != self.size, None
        self._waiting.close()
        if self.is_running and self.screen_stack:
            if resized:
                self.screen.refresh()
            self.screen.check_idle()

    # -- failing -----------------------------------------------------------------------------

    @property
    def failure(self) -> Exception | None:
        """What ended the dashboard although nobody wanted it to."""
        return getattr(self._exception, "error", self._exception)  # what a worker raised

    def _print_error_renderables(self) -> None:
        """Say nothing here, where Textual prints pages: the process says it in one line."""
        self._exit_renderables.clear()
