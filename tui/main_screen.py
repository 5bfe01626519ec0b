"""The screen that is always there: header, one of the pages, warnings, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from dreamer_async.tui.draw.text import clean
from dreamer_async.tui.pages import NAMES, make
from dreamer_async.tui.pages.page import Page
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.show import alarms
from dreamer_async.tui.show.export import file_name, to_csv
from dreamer_async.tui.show.glossary import find
from dreamer_async.tui.show.groups import legend as runs_legend
from dreamer_async.tui.show.options import LOG_MODES, SMOOTHINGS, Options, axes, suited
from dreamer_async.tui.show.shown import Shown
from dreamer_async.tui.widgets.chart import Chart
from dreamer_async.tui.widgets.dialogs import AskWords, FindWords
from dreamer_async.tui.widgets.grid import ChartGrid
from dreamer_async.tui.widgets.header import Header, HeaderFacts
from dreamer_async.tui.widgets.keybar import Key, KeyBar
from dreamer_async.tui.widgets.lines import AlertLine, Legend
from dreamer_async.tui.widgets.metric import MetricScreen

T = TypeVar("T")

QUIET, SETTLING = 3, 20
"""Rounds of messages in which nothing on a page asks for another place before it is painted, and
most rounds in any case."""

TABS = tuple(
    Key(str(number), name, f"page('{name}')") for number, name in enumerate(NAMES, start=1)
)
_HELP, _RUNS = Key("?", "help", "app.help"), Key("r", "runs", "app.runs")
_EXPLAIN = Key("i", "explain", "explain")
KEYS = (
    _HELP,
    Key("q", "detach", "app.detach"),
    Key("p", "pause", "app.pause"),
    Key("c", "save", "app.checkpoint"),
    Key("Q", "stop", "app.ask_stop"),
    Key("e", "evaluate", "app.evaluate"),
    _RUNS,
    _EXPLAIN,
)
KEYS_AT_REST = (_HELP, Key("q", "close", "app.detach"), _RUNS, _EXPLAIN)
"""Where nobody trains: there is no trainer to ask for anything, or to be detached from."""


_SLASH = "Draw some metrics only; find words in the log"


class Main(Screen[None]):
    """Shows a run, and others laid over it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "page('overview')", "Overview", tooltip="Overview: the run on one screen"),
        Binding("2", "page('losses')", "Losses", tooltip="Losses and all other metrics"),
        Binding("3", "page('pipeline')", "Pipeline", tooltip="Pipeline: where the time goes"),
        Binding("4", "page('world')", "World model", tooltip="World model: real, seen, dreamed"),
        Binding("5", "page('episodes')", "Episodes", tooltip="Episodes and evaluations"),
        Binding("6", "page('log')", "Log", tooltip="Log: what happened"),
        Binding("7", "page('compare')", "Compare", tooltip="Compare with other runs"),
        Binding("tab", "turn(1)", "Next page", tooltip="Next page"),
        Binding("shift+tab", "turn(-1)", "Last page", tooltip="Page before"),
        Binding("s", "smoothing", "Smooth", tooltip="Average over 20, 100, 500 or no points"),
        Binding("y", "log_axis", "Log axis", tooltip="Axis of the losses: auto, log, linear"),
        Binding("x", "across", "Axis", tooltip="Across: env steps, frames, updates, hours"),
        Binding("plus,equals_sign", "zoom(1)", "Closer", key_display="+", tooltip="Zoom in"),
        Binding("minus", "zoom(-1)", "Wider", key_display="-", tooltip="Zoom out"),
        Binding("left", "pan(-1)", "Left", tooltip="Pan left; on the world model a frame back"),
        Binding("right", "pan(1)", "Right", tooltip="Pan right; there a frame on"),
        Binding("up", "move(-1)", "Up", tooltip="Choose the chart before, or scroll up"),
        Binding("down", "move(1)", "Down", tooltip="Choose the next chart, or scroll down"),
        Binding("pageup", "roll(-1)", "Page up", tooltip="Scroll up by a page"),
        Binding("pagedown", "roll(1)", "Page down", tooltip="Scroll down by a page"),
        Binding("slash", "filter", "Filter", key_display="/", tooltip=_SLASH),
        Binding("i,enter", "explain", "Explain", tooltip="What a number means, and its curve"),
        Binding("E", "export", "Export", tooltip="Save the number that i shows as CSV, here"),
        Binding("v", "source", "Source", tooltip="World model: next sequence or observation"),
        Binding("d", "film", "Dream", tooltip="World model: ask for a new film"),
        Binding("space", "play", "Play", tooltip="World model: play or pause the film"),
        Binding("n", "match(1)", "Next", tooltip="Log: next match of what / found"),
        Binding("N", "match(-1)", "Before", tooltip="Log: the match before"),
        Binding("l", "level", "Level", tooltip="Log: all, warnings, errors"),
    ]

    def __init__(
        self,
        clock: Callable[[], float],
        arrived: Callable[[], Awaitable[None]],
        *,
        animate: bool,
        film: Callable[[], None],
        export: Callable[[str, str], None],
        page: str,
    ) -> None:
        """`page` is the one that is open at first."""
        super().__init__()
        self.options = Options()
        self.shown: Shown | None = None
        self._clock = clock
        self._arrived: Callable[[], Awaitable[None]] | None = arrived
        """To be called once, when everything has found its place."""
        self._play_films = animate
        self._ask_film, self._export = film, export
        self._open = page
        self._pages = {page: make(page)}
        """Those that somebody turned to."""
        self._pages[page].playing = animate
        self._mounting = asyncio.Lock()
        self._turning = 0
        """Pages that somebody turned to and that have not been painted yet."""

    def compose(self) -> ComposeResult:
        yield Header(id="header")
        yield Legend(id="legend")
        with ContentSwitcher(initial=self._open, id="body"):
            yield from self._pages.values()
        yield AlertLine(id="alerts")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.set_interval(0.2, self._next_frame)

    def on_resize(self) -> None:
        if self._arrived is not None:
            self.call_next(self._arrived)
            self._arrived = None

    # -- showing -----------------------------------------------------------------------------

    @property
    def page(self) -> Page:
        """The page that is open."""
        return self._pages[self._open]

    @property
    def ready(self) -> bool:
        """Tell whether every widget is there: a busy machine takes a moment, at the end too."""
        return any(isinstance(child, KeyBar) for child in self.children) and all(
            page.children for page in self._pages.values()
        )

    @property
    def turning(self) -> bool:
        """Tell whether a page is still finding its place."""
        return self._turning > 0

    def show(self, source: Source, others: tuple[Source, ...]) -> None:
        """Show the runs as they are now."""
        if not self.ready:
            return
        self.shown = Shown(source, others, suited(self.options, source.view), self._clock())
        phase, now = source.phase, self.shown.now
        step = source.log_end if phase.name in ("waiting", "resuming") else ""
        step = step or (f"resuming: {source.view.phase}" if phase.name == "resuming" else "")
        name = clean(source.run_dir.name)
        facts = HeaderFacts(clean(name, 80), phase, now, source.reading, step)
        self.query_one(Header).show(source.view, facts)
        legend = self.query_one(Legend)
        legend.display = bool(others)
        if others:
            legend.show(partial(runs_legend, self.shown.groups))
        self.query_one(AlertLine).show(
            alarms.line(source.view, phase, now, name), alarms.safety(source.view, now)
        )
        tabs = TABS if others or self.page.id == "compare" else TABS[:-1]
        keys = KEYS if source.may_run else KEYS_AT_REST
        self.query_one(KeyBar).show(tabs, self.page.id or "", keys)
        self.page.show(self.shown)
        if isinstance(self.app.screen, MetricScreen):
            self.app.screen.follow(self.shown)

    def refresh_page(self, *, all_of_it: bool = True) -> None:
        """Draw the open page anew."""
        if all_of_it:
            self.page.forget()
        if self.shown is not None and self.ready:
            self.show(self.shown.source, tuple(self.shown.others))

    def on_chart_grid_resized(self) -> None:
        self.refresh_page()

    def _next_frame(self) -> None:
        page = self.page
        if self.ready and page.moving and self.app.screen is self:
            page.advance()
            self.refresh_page(all_of_it=False)

    # -- keys: pages and curves --------------------------------------------------------------

    async def action_page(self, name: str) -> None:
        """Turn to a page, which is painted once, when everything on it has found its place."""
        curtain = ExitStack()
        curtain.enter_context(self.app.batch_update())
        self._turning += 1
        await self._page(name)
        self._open = self.query_one(ContentSwitcher).current = name
        self._give_places()
        self.refresh_page()
        self.call_after_refresh(self._settle, curtain, 0)

    def _give_places(self) -> None:
        """Do now what Textual would do after the batch, with a paint each time."""
        self._layout_required = False
        self._refresh_layout()

    async def _settle(self, curtain: ExitStack, rounds: int, quiet: int = 0) -> None:
        """Paint when nothing has asked for another place for a while, as new charts do."""
        for grid in self.page.query(ChartGrid):
            await grid.mounted()
        await asyncio.sleep(0)  # for what has something to say about it
        quiet = 0 if self._layout_required else quiet + 1
        if quiet > QUIET or rounds > SETTLING:
            self._turning -= 1
            self.refresh()
            curtain.close()
            return
        if not quiet:
            self._give_places()
        self.call_after_refresh(self._settle, curtain, rounds + 1, quiet)

    async def _page(self, name: str) -> Page:
        """A page, mounted if it is not yet."""
        async with self._mounting:  # a key and the mouse may ask at the same time
            if name not in self._pages:
                page = make(name)
                page.display = False
                page.playing = self._play_films
                await self.query_one(ContentSwitcher).mount(page)
                self._pages[name] = page
        return self._pages[name]

    async def action_turn(self, direction: int) -> None:
        """Turn to the page after or before this one."""
        names = NAMES if self.shown is not None and self.shown.others else NAMES[:-1]
        place = names.index(self.page.id or "") if self.page.id in names else 0
        await self.action_page(names[(place + direction) % len(names)])

    def action_log_axis(self) -> None:
        """Choose the next axis for the losses."""
        self._choose(log=_next(LOG_MODES, self.options.log))

    def action_smoothing(self) -> None:
        """Choose the next smoothing."""
        self._choose(smoothing=_next(SMOOTHINGS, self.options.smoothing))

    def action_across(self) -> None:
        """Choose what curves are drawn over."""
        if self.shown is not None:
            known, now = axes(self.shown.view), self.shown.options.axis
            self._choose(axis=_next(known, now))

    def action_zoom(self, direction: int) -> None:
        """Show less of the run, or more."""
        zoom = self.options.zoom
        self._choose(zoom=zoom.closer() if direction > 0 else zoom.wider())

    def action_pan(self, direction: int, curves: bool = False) -> None:
        """Look at an earlier or a later part; some pages have more to pan than curves."""
        if curves or not self.page.pan(direction):
            self._choose(zoom=self.options.zoom.moved(direction))
        else:
            self.refresh_page(all_of_it=False)

    def _choose(self, **changes: object) -> None:
        self.options = replace(self.options, **changes)
        self.refresh_page()

    # -- keys: what is on a page -------------------------------------------------------------

    def action_move(self, rows: int) -> None:
        """Move up or down on the page."""
        self.page.move(rows)
        self.refresh_page(all_of_it=False)

    def action_roll(self, direction: int) -> None:
        """Move by as much as fits."""
        self.page.turn_page(direction)
        self.refresh_page(all_of_it=False)

    def action_filter(self) -> None:
        """Ask for words, and draw only metrics with one of them; find them on a page of text."""
        page = self.page
        if page.words is not None:
            before = page.words
            dialog = FindWords(before, self._find)
            self.app.push_screen(
                dialog, lambda words: self._find(before) if words is None else None
            )
            return
        self.app.push_screen(AskWords("filter", self.options.filter), self._filtered)

    def _find(self, words: str) -> None:
        if words != self.page.words:
            self.page.find(words)
            self.refresh_page(all_of_it=False)

    def action_match(self, direction: int) -> None:
        """Go to the next of the words that were looked for, or to the one before."""
        self.page.next_match(direction)
        self.refresh_page(all_of_it=False)

    async def _filtered(self, words: str | None) -> None:
        if words is None:
            return
        self.options = replace(self.options, filter=clean(words.strip(), 60))
        if self.page.id == "losses":
            self.refresh_page()
        else:
            await self.action_page("losses")

    def action_explain(self, name: str = "") -> None:
        """Say what a number means, beginning with the most wanted one of this page."""
        if self.shown is not None:
            topics = self._topics(self.shown, name)
            curves, export = self.run_action, self.action_export
            self.app.push_screen(MetricScreen(self.shown, topics, curves=curves, export=export))

    def _topics(self, shown: Shown, first: str = "") -> list[str]:
        """Every number that can be explained or drawn, the most wanted of this page first."""
        view = shown.view
        topics = [first] if first else []
        topics += [topic for topic in self.page.topics(view) if topic != first]
        rest = [topic for topic in (*view.metrics, *view.gauges) if topic not in topics]
        return [topic for topic in [*topics, *rest] if find(topic) or topic in view.metrics]

    def action_export(self, name: str = "") -> None:
        """Write the curve of a number as CSV, beginning as `explain` does."""
        if self.shown is not None and (topics := self._topics(self.shown, name)):
            text = to_csv(self.shown.view, topics[0])
            self._export(text, file_name(self.shown.source.label, topics[0]))

    async def action_source(self) -> None:
        """Show the next sequence."""
        (await self._page("world")).next_source()
        await self.action_page("world")

    async def action_play(self) -> None:
        """Play the film, or stop it."""
        world = await self._page("world")
        world.playing = not world.playing
        self.refresh_page(all_of_it=False)

    def action_film(self) -> None:
        """Ask for a new film."""
        self._ask_film()

    async def action_level(self) -> None:
        """Choose the next level of the log."""
        (await self._page("log")).next_level()
        await self.action_page("log")

    # -- mouse -------------------------------------------------------------------------------

    async def on_click(self, event: Click) -> None:
        """Open the chart below the mouse, or the log from the line of warnings."""
        if isinstance(event.widget, Chart) and event.widget.picture.name:
            self.action_explain(event.widget.picture.name)
        elif isinstance(event.widget, AlertLine):
            await self.action_page("log")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: MouseScrollUp | MouseScrollDown, direction: int) -> None:
        """Zoom where charts are; a terminal's own event does not say what lies below the mouse."""
        widget, _ = self.get_widget_at(event.screen_x, event.screen_y)
        if isinstance(widget, Chart | ChartGrid):
            self.action_zoom(direction)


def _next(values: tuple[T, ...], value: T) -> T:
    return values[(values.index(value) + 1) % len(values)]
