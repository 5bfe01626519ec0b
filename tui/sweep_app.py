"""The dashboard of a sweep: one line for each run, and its groups on one chart.

It ends with the run that a person chose to see, whose own dashboard the process shows then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen

from dreamer_async.tui import terminal
from dreamer_async.tui.draw.rows import Part, Row
from dreamer_async.tui.read.sweep import Member, SweepSource
from dreamer_async.tui.show import sweep as show
from dreamer_async.tui.terminal_app import BUSY_SECONDS, PAINT_SECONDS, FollowingApp
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.keybar import Key, KeyBar
from dreamer_async.tui.widgets.listing import Listing
from dreamer_async.tui.widgets.panel import Panel

LOOK_SECONDS = 1.0
"""Between two looks at which runs there are and who trains them."""
KEYS = (
    Key("enter", "open", "app.open"),
    Key("s", "sort", "app.sort"),
    Key("b", "backwards", "app.backwards"),
    Key("t", "theme", "app.theme"),
    Key("q", "leave", "app.leave"),
)


class Head(Panel):
    """The row on top."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._row: Callable[[int], Row] = lambda width: ()

    def show(self, row: Callable[[int], Row]) -> None:
        """Replace what makes the row for so many columns."""
        self._row = row
        self.repaint()

    def paint(self, width: int, height: int) -> list[Row]:
        return [self._row(width)][:height]


class SweepScreen(Screen[None]):
    """Head, runs, chart and keys."""

    def compose(self) -> ComposeResult:
        yield Head(id="sweep-head")
        with Vertical(id="sweep-body"):
            yield Listing("runs", id="sweep-runs")
            yield Chart(id="sweep-returns")
        yield KeyBar(id="keys")


class SweepApp(FollowingApp[Path]):
    """Follows a sweep; its result is the run to be shown next, or None to leave."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+q", "leave", "Leave", priority=True),
        Binding("ctrl+c", "leave", "Leave", show=False, priority=True),
        Binding("enter", "open", "Open the chosen run"),
        Binding("up", "move(-1)", "Up"),
        Binding("down", "move(1)", "Down"),
        Binding("pageup", "roll(-1)", "Page up"),
        Binding("pagedown", "roll(1)", "Page down"),
        Binding("home", "move(-100000)", "First"),
        Binding("end", "move(100000)", "Last"),
        Binding("s", "sort", "Sort by the next column"),
        Binding("b", "backwards", "Sort backwards"),
        Binding("t", "theme", "Next colours"),
    ]

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        on_terminal: bool = False,
        ascii: bool = False,
    ) -> None:
        super().__init__(clock=clock, on_terminal=on_terminal, ascii=ascii)
        self.source = SweepSource(path, clock)
        self.sort, self.backwards = show.SORTS[0], False
        self.chosen = ""
        """Name of the run below the cursor."""
        self.hung_up = False

    # -- life --------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        """Start with the one screen there is."""
        return SweepScreen()

    def on_mount(self) -> None:
        self.source.look()
        self.run_worker(self.follow(), exclusive=True)
        self.set_interval(LOOK_SECONDS, self.source.look)
        self.set_interval(PAINT_SECONDS, self.show)
        self.call_after_refresh(self.show)

    def on_unmount(self) -> None:
        self.source.close()

    def read_piece(self) -> bool:
        """Fold a piece of every run into its view, as many as time allows; is there more?"""
        deadline = time.monotonic() + BUSY_SECONDS
        for _ in self.source.members:
            self.source.read_piece()
            if time.monotonic() > deadline:
                break
        return self.source.behind

    # -- showing -----------------------------------------------------------------------------

    @property
    def listed(self) -> list[Member]:
        """The runs in the order of the screen."""
        return show.in_order(self.source.members, self.sort, backwards=self.backwards)

    def show(self) -> None:
        """Bring the screen up to date."""
        if not self.is_running or not self.screen.query("#keys"):
            return
        members = self.listed
        place = self._place(members)
        table = self.screen.query_one("#sweep-runs", Listing)
        width = max(1, table.content_size.width)
        if place is not None:
            self.chosen = members[place].job.name
            table.offset_rows = max(min(table.offset_rows, place), place - table.page_rows + 1)
        if len(members) != table.count:
            table.refresh(layout=True)
        table.show(
            len(members),
            lambda index: show.line(members[index], width, chosen=index == place),
            heading=show.heading(self.sort, width),
            note=[Part(show.foot(self.sort, backwards=self.backwards), "dim")],
            empty="none yet",
        )
        self.screen.query_one("#sweep-head", Head).show(partial(show.head, self.source))
        picture = show.chart(self.source.members, None if place is None else members[place])
        self.screen.query_one("#sweep-returns", Chart).show(picture)
        self.screen.query_one(KeyBar).show((), "", KEYS)

    def _place(self, members: list[Member]) -> int | None:
        names = [member.job.name for member in members]
        if not names:
            return None
        return names.index(self.chosen) if self.chosen in names else 0

    # -- keys --------------------------------------------------------------------------------

    def action_leave(self) -> None:
        """Close the dashboard; the sweep goes on."""
        self.exit(None)

    def action_open(self) -> None:
        """Show the chosen run."""
        members = self.listed
        place = self._place(members)
        if place is None or members[place].source is None:
            self.notify("this run has not begun yet", severity="warning", markup=False)
        else:
            self.exit(members[place].path)

    def action_move(self, rows: int) -> None:
        """Choose another run."""
        members = self.listed
        place = self._place(members)
        if place is not None:
            self.chosen = members[max(0, min(len(members) - 1, place + rows))].job.name
            self.show()

    def action_roll(self, direction: int) -> None:
        """Move by as much as fits."""
        self.action_move(direction * self.screen.query_one("#sweep-runs", Listing).page_rows)

    def action_sort(self) -> None:
        """Sort by the next column."""
        self.sort = show.SORTS[(show.SORTS.index(self.sort) + 1) % len(show.SORTS)]
        self.show()

    def action_backwards(self) -> None:
        """Turn the order round."""
        self.backwards = not self.backwards
        self.show()

    def action_theme(self) -> None:
        """Choose the next colours."""
        super().action_theme()
        self.call_after_refresh(self.show)

    # -- the terminal ------------------------------------------------------------------------

    def interrupted(self) -> None:
        """Close the dashboard."""
        self.action_leave()

    def hang_up(self) -> None:
        """Close the dashboard, even if the lost terminal keeps the app from closing."""
        self.hung_up = True
        terminal.leave_soon(0)
        self.exit(None)


async def screenshot(app: SweepApp, size: tuple[int, int]) -> str:
    """Draw a sweep without a terminal and return it as an SVG."""
    async with app.run_test(size=size) as pilot:
        while app.is_running and not (app.source.members and app.source.caught_up):
            await pilot.pause(0.05)
            if app.source.problem:
                break
        for _ in range(2):  # two misses in a row say that nobody trains
            app.source.look()
        app.show()
        await pilot.pause()
        return app.export_screenshot(title=f"dreamer-async watch {app.source.name}")
