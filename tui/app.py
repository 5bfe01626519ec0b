"""The dashboard: keys, pages and the loop that reads, folds and shows.

The trainer is another process. This one reads its event stream, asks whether its lock is held,
and may leave a request in the run directory; closing it changes nothing in the trainer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widgets import Footer

from dreamer_async.events import Controlled
from dreamer_async.run_dir import RunDir
from tui import pictures
from tui.pictures import SMOOTHINGS, Options
from tui.state import (
    Phase,
    RunView,
    Trainer,
    optional_charts,
    phase,
    reduce,
    required_charts,
)
from tui.tail import Tail
from tui.text import clean
from tui.themes import THEMES
from tui.widgets.chart import Chart, LogMode
from tui.widgets.dialogs import ConfirmStop, Help
from tui.widgets.grid import ChartGrid
from tui.widgets.header import Header, HeaderFacts
from tui.widgets.lines import AlertLine, Caption
from tui.widgets.meters import Meters

DETACHED = 0
"""Exit code: the dashboard was closed, whatever the trainer does."""
STOPPED = 10
"""Exit code: a stop was asked for here and the trainer has ended."""

POLL_SECONDS = 0.25
PAINT_SECONDS = 0.5
HANG_UP_SECONDS = 3.0
START_GRACE_SECONDS = 30.0
"""How long a trainer that was just started may take until it holds its lock."""
_DETACH = "Close the dashboard; the trainer goes on"
_WIDTHS = [(0, "-tiny"), (60, "-narrow"), (100, "-normal"), (160, "-wide")]
_HEIGHTS = [(0, "-low"), (32, "-tall")]
_LOG_MODES: tuple[LogMode, ...] = ("auto", "log", "linear")


class Overview(Screen[None]):
    """The whole run on one screen; low terminals turn to the losses."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "page('overview')", "Overview", tooltip="Show returns, scale and pipeline"),
        Binding("2", "page('losses')", "Losses", tooltip="Show the losses on the whole screen"),
        Binding("tab,shift+tab", "next_page", "Next page", show=False, tooltip="Turn the page"),
        Binding("y", "log_axis", "Log", tooltip="Axis of the losses: auto, log, linear"),
        Binding("s", "smoothing", "Smooth", tooltip="Average over 20, 100, 500 or no points"),
    ]

    options = Options()
    _seen = (-1, -1, -1)

    def compose(self) -> ComposeResult:
        yield Header(id="header")
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield Chart(id="returns")
                yield Caption("losses", id="caption")
                yield ChartGrid(id="losses")
            with Vertical(id="right"):
                yield Chart(id="scale")
                yield Meters("pipeline", id="pipeline")
                yield Meters("replay", id="replay")
        yield AlertLine(id="alerts")
        yield Footer(compact=True, show_command_palette=False)

    def show_header(self, view: RunView, facts: HeaderFacts) -> None:
        """Show what changes with the clock."""
        self.query_one(Header).show(view, facts)
        self.query_one(AlertLine).show(
            pictures.alert(view, facts.phase, facts.now), pictures.safety(view, facts.now)
        )

    def show_view(self, view: RunView) -> None:
        """Show everything that comes from the events."""
        self.query_one(Caption).show(pictures.losses_note(self.options))
        self._show_episodes(view)
        self._show_metrics(view)
        self._show_gauges(view)

    def show_news(self, view: RunView) -> None:
        """Show what changed since the last time, in a view that only grew."""
        seen = (view.episode_count, view.metrics_seen, view.gauges_seen)
        shows = (self._show_episodes, self._show_metrics, self._show_gauges)
        for show, number, before in zip(shows, seen, self._seen, strict=True):
            if number != before:
                show(view)
        self._seen = seen

    def _show_episodes(self, view: RunView) -> None:
        self.query_one("#returns", Chart).show(pictures.returns(view, self.options))

    def _show_metrics(self, view: RunView) -> None:
        self.query_one("#scale", Chart).show(pictures.scale(view))
        grid = self.query_one(ChartGrid)
        required = len(required_charts(view))
        room = grid.lay_out(required, required + len(optional_charts(view)))
        grid.show(pictures.losses(view, self.options, room))

    def _show_gauges(self, view: RunView) -> None:
        self.query_one("#pipeline", Meters).show(pictures.pipeline(view))
        self.query_one("#replay", Meters).show(pictures.replay(view))

    def on_chart_grid_resized(self) -> None:
        self._dashboard.show_now()

    def action_page(self, page: str) -> None:
        """Turn to a page."""
        self.set_class(page == "losses", "-page-losses")

    def action_next_page(self) -> None:
        """Turn to the other page."""
        self.action_page("overview" if self.has_class("-page-losses") else "losses")

    def action_log_axis(self) -> None:
        """Choose the next axis for the losses."""
        modes = _LOG_MODES
        self._choose(log=modes[(modes.index(self.options.log) + 1) % len(modes)])

    def action_smoothing(self) -> None:
        """Choose the next smoothing."""
        place = SMOOTHINGS.index(self.options.smoothing)
        self._choose(smoothing=SMOOTHINGS[(place + 1) % len(SMOOTHINGS)])

    def _choose(self, *, smoothing: int | None = None, log: LogMode | None = None) -> None:
        now = self.options
        self.options = Options(smoothing or now.smoothing, log or now.log)
        self._dashboard.show_now()

    @property
    def _dashboard(self) -> Dashboard:
        assert isinstance(self.app, Dashboard), self.app
        return self.app


class Dashboard(App[int]):
    """Follows one run."""

    TITLE = "dreamer-async"
    CSS_PATH = "dashboard.tcss"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = _WIDTHS
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = _HEIGHTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "detach", "Detach", tooltip=_DETACH),
        Binding("ctrl+q", "detach", "Detach", show=False, priority=True, tooltip=_DETACH),
        Binding("Q", "ask_stop", "Stop", tooltip="Save a checkpoint and end the trainer"),
        Binding(
            "ctrl+c",
            "interrupt",
            "Interrupt",
            show=False,
            priority=True,
            tooltip="Stop and save if the run began here, else detach",
        ),
        Binding("p", "pause", "Pause", tooltip="Hold the trainer, or let it go on"),
        Binding("c", "checkpoint", "Save", tooltip="Save a checkpoint now"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="Show this list"),
        Binding("t", "theme", "Theme", tooltip="Next colours"),
    ]

    def __init__(
        self,
        run_dir: Path,
        *,
        owner: bool = False,
        clock: Callable[[], float] = time.time,
        on_terminal: bool = False,
    ) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
        self.run_dir = RunDir(run_dir)
        self.owner = owner
        self.clock = clock
        self.view = RunView()
        self.trainer = Trainer()
        self.tail = Tail(self.run_dir.events_path)
        self.caught_up = False
        self._on_terminal = on_terminal
        self._opened = clock()
        self._restarts = 0
        self._shown_news = (-1, -1)
        self._shown_second = -1
        self._misses = 0
        self._asked = False
        self._answered_before: Controlled | None = None

    # -- life --------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        """Start with the overview."""
        return Overview()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give the themes of Textual the one colour that only ours define."""
        return {"third": THEMES[0].variables["third"]}

    def on_mount(self) -> None:
        if self._on_terminal:
            self._catch_signals()
            self.set_interval(1.0, self._check_terminal)
        self.check_trainer()
        self.run_worker(self._follow(), exclusive=True)
        self.set_interval(PAINT_SECONDS, self.show)
        self.set_interval(1.0, self.check_trainer)

    def on_unmount(self) -> None:
        self.tail.close()

    async def _follow(self) -> None:
        """Read for ever, a piece at a time, so that keys and paint come in between."""
        while True:
            self.read_piece()
            await asyncio.sleep(0 if self.tail.behind else POLL_SECONDS)

    def read_piece(self) -> None:
        """Fold the next piece of the stream into the view."""
        records = self.tail.read()
        if self.tail.restarts != self._restarts:
            self._restarts = self.tail.restarts
            self.view, self.caught_up = RunView(), False
        for record in records:
            reduce(self.view, record)
        self.caught_up |= not self.tail.behind

    # -- showing -----------------------------------------------------------------------------

    @property
    def overview(self) -> Overview:
        """The screen at the bottom of the stack."""
        screen = self.screen_stack[0]
        assert isinstance(screen, Overview), screen
        return screen

    def show(self) -> None:
        """Bring the screen up to date, as far as anything changed."""
        news, second = (self._restarts, self.view.records), int(self.clock())
        if news != self._shown_news or second != self._shown_second:
            self._show_header()
        if news[0] != self._shown_news[0]:
            self.overview.show_view(self.view)
        elif news != self._shown_news:
            self.overview.show_news(self.view)
        self._shown_news, self._shown_second = news, second
        self._show_answer()
        self._leave_when_stopped()

    def show_now(self) -> None:
        """Bring the screen up to date although no event came."""
        self._show_header()
        self.overview.show_view(self.view)

    def phase(self) -> Phase:
        """Say what the run is doing, as far as this process can tell."""
        return phase(self.view, self.trainer)

    def _show_header(self) -> None:
        reading = None if self.caught_up else self.tail.offset / max(1, self.tail.size)
        name = clean(self.run_dir.name, 80)
        self.overview.show_header(self.view, HeaderFacts(name, self.phase(), self.clock(), reading))

    # -- the trainer -------------------------------------------------------------------------

    def check_trainer(self) -> None:
        """Find out whether somebody holds the run's lock; two misses in a row count."""
        if self.run_dir.owner() is not None:
            self._misses = 0
            self.trainer = replace(self.trainer, alive=True)
            return
        self._misses += 1
        starting = self.trainer.alive is None and self.owner
        patience = START_GRACE_SECONDS if starting else 0.0
        if self._misses > 1 and self.caught_up and self.clock() - self._opened >= patience:
            self.trainer = replace(self.trainer, alive=False)

    def may_run(self) -> bool:
        """Tell whether there is, or may be, a trainer that could be asked to stop."""
        return self.view.finished is None and self.trainer.alive is not False

    def _leave_when_stopped(self) -> None:
        if self.trainer.stop_requested_at is not None and not self.may_run():
            self.exit(STOPPED)

    def request_stop(self) -> None:
        """Ask the trainer to save and end, once; the dashboard leaves after it."""
        if self.trainer.stop_requested_at is None and self.ask("stop"):
            self.trainer = replace(self.trainer, stop_requested_at=self.clock())
            self.show_now()

    def ask(self, command: str) -> bool:
        """Leave a request for the trainer, and tell whether that worked."""
        try:
            self.run_dir.request(command)
        except OSError as error:
            self._say(f"the {command} request could not be written: {error}", "error")
            return False
        self._asked, self._answered_before = True, self.view.answer
        return True

    def _say(self, text: str, severity: SeverityLevel = "information") -> None:
        self.notify(clean(text, 200), severity=severity, markup=False)

    def _show_answer(self) -> None:
        """Say what the trainer answered to a request of ours."""
        answer = self.view.answer
        if not self._asked or answer is None or answer is self._answered_before:
            return
        self._asked = False
        reason = f": {answer.reason}" if answer.reason else ""
        severity = "warning" if answer.answer == "refused" else "information"
        self._say(f"{answer.command} {answer.answer}{reason}", severity)

    # -- keys --------------------------------------------------------------------------------

    def action_detach(self) -> None:
        """Close the dashboard."""
        self.exit(DETACHED)

    async def action_quit(self) -> None:
        """Close the dashboard; the command palette's word for it."""
        self.action_detach()

    def action_interrupt(self) -> None:
        """Stop the trainer that this terminal started, or else just close."""
        if not self.owner:
            self.action_detach()
        elif self.may_run():
            self.request_stop()
        else:
            self.exit(STOPPED)

    def action_ask_stop(self) -> None:
        """Ask before the trainer is stopped; without a trainer there is nothing to ask."""
        if not self.may_run():
            self.exit(STOPPED)
        elif self.trainer.stop_requested_at is None:
            self.push_screen(ConfirmStop(), self._answered)

    def _answered(self, stop: bool | None) -> None:
        if stop:
            self.request_stop()

    def action_pause(self) -> None:
        """Ask the trainer to hold, or to go on when it holds."""
        self._ask_if_running("resume" if self.phase().name == "paused" else "pause")

    def action_checkpoint(self) -> None:
        """Ask the trainer to save now."""
        self._ask_if_running("checkpoint")

    def _ask_if_running(self, command: str) -> None:
        if not self.may_run():
            self._say("there is no trainer to ask", "warning")
        elif self.ask(command):
            self._say(f"{command} asked for")

    def action_help(self) -> None:
        """Show every key that works here."""
        self.push_screen(Help(self.keys()))

    def keys(self) -> list[tuple[str, str]]:
        """List (keys, meaning) of all bindings of the dashboard, keys of one action together."""
        meanings: dict[str, list[str]] = {}
        for active in self.overview.active_bindings.values():
            binding = active.binding
            what = binding.tooltip or binding.description
            if what and binding.action != "screen.copy_text":
                meanings.setdefault(what, []).append(self.get_key_display(binding))
        return [(", ".join(keys), what) for what, keys in meanings.items()]

    def action_theme(self) -> None:
        """Choose the next theme."""
        names = [theme.name for theme in THEMES]
        place = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(place + 1) % len(names)]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Add what the keys do to the command palette."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Stop", "Save a checkpoint and end the trainer", self.action_ask_stop)
        yield SystemCommand("Pause", "Hold the trainer, or let it go on", self.action_pause)
        yield SystemCommand("Checkpoint", "Save a checkpoint now", self.action_checkpoint)

    # -- signals -----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """Turn signals into keys: Textual handles none of them itself."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._terminate)
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _terminate(self) -> None:
        """Do what ctrl+c does, but leave at once if the trainer has just ended."""
        if self.owner and self.run_dir.owner() is None:
            self.exit(STOPPED)
        else:
            self.action_interrupt()

    def _check_terminal(self) -> None:
        """Leave when the terminal is gone and nobody sent SIGHUP: Textual would spin for ever."""
        try:
            termios.tcgetattr(0)
        except termios.error:
            self._hang_up()

    def _hang_up(self) -> None:
        """Detach; if the lost terminal keeps the app from closing, leave without it."""
        rescue = threading.Timer(HANG_UP_SECONDS, os._exit, (DETACHED,))
        rescue.daemon = True
        rescue.start()
        self.exit(DETACHED)


def main(run_dir: Path, owner: bool = False) -> int:
    """Show the dashboard of a run on this terminal and return the exit code."""
    code = Dashboard(run_dir, owner=owner, on_terminal=True).run()
    return DETACHED if code is None else code


async def screenshot(
    run_dir: Path, size: tuple[int, int] = (120, 40), page: str = "overview"
) -> str:
    """Draw the dashboard of a run without a terminal and return it as an SVG."""
    app = Dashboard(run_dir)
    async with app.run_test(size=size) as pilot:
        while app.is_running and not app.caught_up:
            await pilot.pause(0.05)
        app.check_trainer()
        app.check_trainer()
        app.overview.action_page(page)
        await pilot.pause()
        app.show_now()
        await pilot.pause()
        return app.export_screenshot(title=f"dreamer-async watch {clean(run_dir.name, 80)}")
