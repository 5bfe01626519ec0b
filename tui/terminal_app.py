"""What all screens here are: their looks and room, a terminal that is slow or goes away, faults."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, TypeVar

from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size

from dreamer_async.tui import terminal
from dreamer_async.tui.album import Album
from dreamer_async.tui.driver import LeanDriver
from dreamer_async.tui.graphics import Choice, Way, way
from dreamer_async.tui.themes import THEMES
from dreamer_async.tui.widgets.panel import COMPONENTS, Panel

POLL_SECONDS = 0.25
PAINT_SECONDS = 0.5
"""Between two looks at what is new."""
BUSY_SECONDS = 0.02
"""While history is read, a piece of work after which keys and paint get their turn."""
_WIDTHS = [(0, "-tiny"), (60, "-narrow"), (100, "-normal"), (160, "-wide")]
_HEIGHTS = [(0, "-low"), (32, "-tall"), (52, "-high")]

Result = TypeVar("Result")


class TerminalApp(App[Result]):
    """Draws a frame when the terminal has the one before."""

    TITLE = "dreamer-async"
    CSS_PATH = Path(__file__).with_name("dashboard.tcss")
    COMPONENT_CLASSES: ClassVar[set[str]] = set(COMPONENTS)
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = _WIDTHS
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = _HEIGHTS

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        on_terminal: bool,
        ascii: bool,
        graphics: Choice = "auto",
    ) -> None:
        """Raises ValueError for graphics that this terminal cannot have."""
        self.way = way(graphics, ascii=ascii) if on_terminal else Way.BLOCKS
        """What is done about pictures; a driver reads it."""
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
        self._in_text = False
        """Draw pictures as text although the terminal could have them."""

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
        if isinstance(self._driver, LeanDriver):
            self._driver.pictured = self._repaint_panels
        if self._on_terminal:
            terminal.on_signals(self.interrupted, self.hang_up)
            self.set_interval(1.0, self._check_terminal)

    def _check_terminal(self) -> None:
        """Leave when the terminal is gone: Textual would spin for ever."""
        if terminal.is_gone():
            self.hang_up()

    def action_theme(self) -> None:
        """Choose the next colours."""
        names = [theme.name for theme in THEMES]
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]

    def action_to_shell(self) -> None:
        """Stop this job of the shell, the launcher included, until the shell continues it."""
        if not (self._on_terminal and terminal.has_shell()):
            self.notify("there is no shell to go back to", severity="warning", markup=False)
            return
        with self.suspend():
            terminal.stop_job()

    def on_notify(self) -> None:
        """Say the newest thing only, so that what is said never reaches down to the keys."""
        self.clear_notifications()
        for screen in self.screen_stack:
            screen.query("ToastHolder").remove()  # a row each, which Textual keeps

    # -- a slow line -------------------------------------------------------------------------

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, in fewer bytes where that is a terminal."""
        chosen = super().get_driver_class()
        return LeanDriver if chosen is LinuxDriver else chosen

    def post_display_hook(self) -> None:
        """Send pictures after their text, and hold the next frame while too much is on its way."""
        driver = self._driver
        held = self._drawn_size is not None or self._batch_count  # their places are not known yet
        if not isinstance(driver, LeanDriver) or held:
            return
        driver.write_pictures()
        if driver.behind:
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
            self.post_display_hook()

    # -- pictures ----------------------------------------------------------------------------

    @property
    def album(self) -> Album | None:
        """The pictures of the terminal, where it has some."""
        driver = self._driver
        return driver.album if isinstance(driver, LeanDriver) and not self._in_text else None

    def _repaint_panels(self) -> None:
        for screen in self.screen_stack:
            for panel in screen.query(Panel):
                panel.repaint()

    def export_screenshot(self, *, title: str | None = None, simplify: bool = False) -> str:
        """Draw the screen as an SVG, with pictures as half blocks: a file has no terminal."""
        self._in_text = True
        self._repaint_panels()
        svg = super().export_screenshot(title=title, simplify=simplify)
        self._in_text = False
        self._repaint_panels()
        return svg

    # -- failing -----------------------------------------------------------------------------

    @property
    def failure(self) -> Exception | None:
        """What ended the dashboard although nobody wanted it to."""
        return getattr(self._exception, "error", self._exception)  # what a worker raised

    def _print_error_renderables(self) -> None:
        """Say nothing here, where Textual prints pages: the process says it in one line."""
        self._exit_renderables.clear()


class FollowingApp(TerminalApp[Result]):
    """A dashboard of something that others write meanwhile."""

    @abstractmethod
    def read_piece(self) -> bool:
        """Fold the next piece of what is followed; tells whether there is more."""

    async def follow(self) -> None:
        """Read for ever, a little at a time, so that keys and paint come in between."""
        while True:
            deadline = time.monotonic() + BUSY_SECONDS
            while (more := self.read_piece()) and time.monotonic() < deadline:
                pass
            await asyncio.sleep(0.005 if more else POLL_SECONDS)
