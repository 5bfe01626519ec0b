"""The dashboard: the loop that reads, folds and shows, and whatever is asked of the trainer.

The trainer is another process. This one reads its event stream, asks whether its lock is held,
and may leave a request in the run directory; closing it changes nothing in the trainer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.events import DeliveryComplete, DeliveryFailed
from textual.notifications import SeverityLevel
from textual.screen import Screen

from dreamer_async.store import exit_codes
from dreamer_async.store.events import Controlled
from dreamer_async.tui import terminal
from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.graphics import Choice
from dreamer_async.tui.main_screen import Main
from dreamer_async.tui.pace import Pace
from dreamer_async.tui.pages import NAMES
from dreamer_async.tui.palette import Palette, commands
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.show import answers
from dreamer_async.tui.show.groups import refusal
from dreamer_async.tui.show.run_list import listed
from dreamer_async.tui.terminal_app import PAINT_SECONDS, FollowingApp
from dreamer_async.tui.widgets.dialogs import ConfirmStop, Help, RunList
from dreamer_async.tui.widgets.grid import ChartGrid

DETACHED = 0
"""Exit code: the dashboard was closed, whatever the trainer does."""

FIRST_SECONDS = 0.5
"""What reading may take before something is shown."""
CSV = "table"
_DETACH = "Detach: close the dashboard; the trainer continues"


class Dashboard(FollowingApp[int]):
    """Follows one run, and others laid over it."""

    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "detach", "Detach", tooltip=_DETACH),
        Binding("ctrl+q", "detach", "Detach", show=False, priority=True, tooltip=_DETACH),
        Binding("Q", "ask_stop", "Stop", tooltip="Stop: save a checkpoint, end the trainer"),
        Binding(
            "ctrl+c",
            "interrupt",
            "Interrupt",
            show=False,
            priority=True,
            tooltip="Stop and save if the run began here, else detach",
        ),
        Binding(
            "ctrl+z",
            "to_shell",
            "Suspend",
            show=False,
            priority=True,
            tooltip="To the shell; fg comes back, the trainer continues",
        ),
        Binding("p", "pause", "Pause", tooltip="Pause or continue the trainer"),
        Binding("c", "checkpoint", "Save", tooltip="Save a checkpoint now"),
        Binding("e", "evaluate", "Evaluate", tooltip="Play ten episodes for their scores"),
        Binding("r", "runs", "Runs", tooltip="Other runs: watch one, or compare it with this one"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="Show this list"),
        Binding("t", "theme", "Theme", tooltip="Next colours: dark, light, colour-blind safe"),
        Binding("S", "screenshot", "Screenshot", tooltip="Save the screen as an SVG, here"),
    ]

    def __init__(
        self,
        run_dir: Path,
        others: Sequence[Path] = (),
        *,
        owner: bool = False,
        clock: Callable[[], float] = time.time,
        on_terminal: bool = False,
        ascii: bool = False,
        animate: bool = True,
        graphics: Choice = "auto",
        page: str = NAMES[0],
        shown: Callable[[], None] | None = None,
    ) -> None:
        """`page` is open at first; `shown` is called after the first frame."""
        super().__init__(clock=clock, on_terminal=on_terminal, ascii=ascii, graphics=graphics)
        self.source = Source(run_dir, owner=owner, clock=clock)
        self.others: list[Source] = []
        for path in others:
            self._lay_over(Source(path, clock=clock))
        self._main = Main(
            clock,
            self._begin,
            animate=animate,
            film=self.ask_film,
            export=self.save_csv,
            page=page,
        )
        self._begun = False
        self._when_shown = shown
        self._curtain = ExitStack()
        """Nothing is painted until it is closed."""
        self._shown_news: tuple[object, ...] = ()
        self._shown_phases: list[Phase] = []
        self._pace = Pace()
        self._asked = False
        self._answered_before: Controlled | None = None

    # -- life --------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        """Start with the one screen there is."""
        return self._main

    def on_mount(self) -> None:
        self._curtain.enter_context(self.batch_update())

    def begin(self) -> None:
        """Open the runs and read for a while, so that what is shown first has numbers in it."""
        self._begun = True
        for source in self.sources:
            source.open()
        self.check_trainer()
        deadline = time.monotonic() + FIRST_SECONDS
        while self.read_piece() and time.monotonic() < deadline:
            pass

    async def _begin(self) -> None:
        """Show what there is, once it is known how much room there is, and follow."""
        if not self._begun:
            self.begin()
        self.show_now()
        for grid in self._main.query(ChartGrid):
            await grid.mounted()
        self._curtain.close()
        if self._when_shown is not None:
            self.call_after_refresh(self._when_shown)
        self.run_worker(self.follow(), exclusive=True)
        self.set_interval(PAINT_SECONDS, self._paint)
        self.set_interval(1.0, self.check_trainer)

    def on_unmount(self) -> None:
        for source in self.sources:
            source.close()

    @property
    def sources(self) -> list[Source]:
        """All runs that are shown, the main one first."""
        return [self.source, *self.others]

    def read_piece(self) -> bool:
        """Fold the next piece of every run into its view; tells whether there is more."""
        for source in self.sources:
            source.read_piece()
        return any(source.behind for source in self.sources)

    # -- showing -----------------------------------------------------------------------------

    @property
    def main(self) -> Main:
        """The screen at the bottom of the stack."""
        return self._main

    def _paint(self) -> None:
        """Show what is new: a phase and an answer at once, numbers when it is time."""
        phases = [source.phase for source in self.sources]
        if phases != self._shown_phases or self._pace.due():
            self._shown_phases = phases
            self._pace.painted()
            self.show()
        else:
            self._react()

    def show(self) -> None:
        """Bring the screen up to date, as far as anything changed."""
        news = (int(self.clock()), *((s.epoch, s.view.records, s.phase) for s in self.sources))
        if news != self._shown_news and self._main.ready:
            self._shown_news = news
            self._main.show(self.source, tuple(self.others))
        self._react()

    def _react(self) -> None:
        """Say what the trainer answered, and leave if it ended as we asked."""
        self._show_answer()
        self._leave_when_stopped()

    def show_now(self) -> None:
        """Bring the screen up to date although no event came."""
        self._main.page.forget()
        self._main.show(self.source, tuple(self.others))

    # -- runs --------------------------------------------------------------------------------

    def action_runs(self) -> None:
        """Show the runs beside this one."""
        chosen = {source.run_dir.name: source.label for source in self.others}
        run, room = self.source.run_dir, RunList.room(self.size.width)
        rows = listed(run.path.parent, run.name, set(chosen), room)
        self.push_screen(RunList(rows, self._pick), self._run_chosen)

    def _pick(self, name: str) -> bool:
        """Lay a run over, or take it off; tells whether it lies there now."""
        path = self.source.run_dir.path.parent / name
        self.overlay(path)
        return any(source.run_dir.path == path for source in self.others)

    def _run_chosen(self, name: str | None) -> None:
        if name is not None:
            self.watch_run(self.source.run_dir.path.parent / name)

    def watch_run(self, path: Path) -> None:
        """Show another run instead."""
        if path != self.source.run_dir.path:
            self.source.close()
            self.source = self._opened(path)
            self.others = [s for s in self.others if s.run_dir.path != path]
            self.check_trainer()
            self.show_now()

    def overlay(self, path: Path) -> None:
        """Lay a run over the main one, or take it off again."""
        kept = [source for source in self.others if source.run_dir.path != path]
        if len(kept) < len(self.others):
            self.others = kept
        elif path == self.source.run_dir.path:
            self._say("this run is shown already", "warning")
        elif why := self._lay_over(self._opened(path)):
            self._say(why, "warning")
        self.show_now()

    def _lay_over(self, source: Source) -> str:
        """Add a run to the others, or say why not."""
        why = refusal((*self.sources, source))
        if why:
            source.close()
        else:
            self.others = [*self.others, source]
        return why

    def _opened(self, path: Path) -> Source:
        source = Source(path, clock=self.clock)
        source.open()
        return source

    # -- the trainer -------------------------------------------------------------------------

    def check_trainer(self) -> None:
        """Find out which runs somebody trains in."""
        for source in self.sources:
            source.check_trainer()

    def _leave_when_stopped(self) -> None:
        over = self.source.view.finished is not None or not self.source.may_run
        if self.source.trainer.stop_requested_at is not None and over:
            self.exit(exit_codes.STOPPED_BY_OWNER)

    def request_stop(self) -> None:
        """Ask the trainer to save and end, once; the dashboard leaves after it."""
        if self.source.trainer.stop_requested_at is None and self.ask("stop"):
            self.source.stopping()
            self.show_now()

    def ask(self, command: str) -> bool:
        """Leave a request for the trainer, and tell whether that worked."""
        try:
            self.source.run_dir.request(command)
        except OSError as error:
            self._say(f"the {command} request could not be written: {error}", "error")
            return False
        self._asked, self._answered_before = True, self.source.view.answer
        return True

    def _say(self, text: str, severity: SeverityLevel = "information") -> None:
        self.notify(clean(text, 200), severity=severity, markup=False)

    def _show_answer(self) -> None:
        """Say what the trainer answered to a request of ours."""
        answer = self.source.view.answer
        if not self._asked or answer is None or answer is self._answered_before:
            return
        self._answered_before = answer
        self._asked = answer.answer == "accepted" and answer.command in ("evaluate", "film")
        severity = "warning" if answer.answer == "refused" else "information"
        self._say(answers.answered(answer), severity)

    # -- keys --------------------------------------------------------------------------------

    def action_detach(self) -> None:
        """Close the dashboard."""
        self.exit(DETACHED)

    async def action_quit(self) -> None:
        """Close the dashboard; the command palette's word for it."""
        self.action_detach()

    def action_interrupt(self) -> None:
        """Stop the trainer that this terminal started, or else just close."""
        if not self.source.owner:
            self.action_detach()
        elif self.source.may_run:
            self.request_stop()
        else:
            self.exit(exit_codes.STOPPED_BY_OWNER)

    def action_ask_stop(self) -> None:
        """Ask before the trainer is stopped; without a trainer there is nothing to ask."""
        if not self.source.may_run:
            self.exit(exit_codes.STOPPED_BY_OWNER)
        elif self.source.trainer.stop_requested_at is None:
            self.push_screen(ConfirmStop(), self._answered)

    def _answered(self, stop: bool | None) -> None:
        if stop:
            self.request_stop()

    def action_pause(self) -> None:
        """Ask the trainer to hold, or to go on when it holds."""
        self._ask_if_running("resume" if self.source.phase.name == "paused" else "pause")

    def action_checkpoint(self) -> None:
        """Ask the trainer to save now."""
        self._ask_if_running("checkpoint")

    def action_evaluate(self) -> None:
        """Ask the trainer to play some episodes for their scores."""
        self._ask_if_running("evaluate")

    def ask_film(self) -> None:
        """Ask the trainer for a new film of its world model."""
        self._ask_if_running("film")

    def _ask_if_running(self, command: str) -> None:
        if not self.source.may_run:
            self._say("there is no trainer to ask", "warning")
        elif self.ask(command):
            self._say(answers.asked(command))

    def action_help(self) -> None:
        """Show every key that works here."""
        self.push_screen(Help(self.keys()))

    def keys(self) -> list[tuple[str, str]]:
        """List (keys, meaning) of all bindings of the dashboard, keys of one action together."""
        ours = [*Dashboard.BINDINGS, *Main.BINDINGS]
        order = {part.action: place for place, part in enumerate(ours) if isinstance(part, Binding)}
        bindings = [active.binding for active in self._main.active_bindings.values()]
        bindings.sort(key=lambda binding: order.get(binding.action, len(ours)))
        meanings: dict[str, list[str]] = {}
        for binding in bindings:
            what = binding.tooltip or binding.description
            if what and binding.action != "screen.copy_text":
                meanings.setdefault(what, []).append(self.get_key_display(binding))
        return [(", ".join(dict.fromkeys(keys)), what) for what, keys in meanings.items()]

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Save the screen as an SVG in the working directory; a browser downloads it."""
        super().action_screenshot(filename, path or os.getcwd())

    def save_csv(self, text: str, name: str) -> None:
        """Save a table in the working directory; a browser downloads it."""
        self.deliver_text(StringIO(text), save_directory=os.getcwd(), save_filename=name, name=CSV)

    def on_delivery_complete(self, event: DeliveryComplete) -> None:
        """Say where a table or a picture is."""
        self._say(f"saved as {event.path}" if event.path else "saved")

    def on_delivery_failed(self, event: DeliveryFailed) -> None:
        """Say that a table or a picture could not be saved."""
        what = "table" if event.name == CSV else "picture"
        self._say(f"the {what} could not be saved: {event.exception}", "error")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette offers: all that the keys do."""
        yield from commands(self, ((self, Dashboard.BINDINGS), (self._main, Main.BINDINGS)))

    def action_command_palette(self) -> None:
        """Open the palette."""
        if not Palette.is_over(self):
            self.push_screen(Palette())

    # -- signals -----------------------------------------------------------------------------

    def interrupted(self) -> None:
        """Do what ctrl+c does, but leave at once if the trainer has just ended."""
        if self.source.owner and self.source.run_dir.owner() is None:
            self.exit(exit_codes.STOPPED_BY_OWNER)
        else:
            self.action_interrupt()

    def hang_up(self) -> None:
        """Detach, even if the lost terminal keeps the app from closing."""
        terminal.leave_soon(DETACHED)
        self.exit(DETACHED)
