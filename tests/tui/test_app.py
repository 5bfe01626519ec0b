"""The dashboard itself, driven by Textual's pilot: sizes, keys, states, hostile text."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any, ParamSpec
from unittest import mock

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets._toast import Toast

from dreamer_async.store import exit_codes, run_lock
from dreamer_async.store.events import (
    Checkpointed,
    Controlled,
    Episode,
    Evaluated,
    Event,
    Gauges,
    Metrics,
    PhaseChanged,
    RunFinished,
    RunStarted,
    Warned,
    encode_line,
    read_events,
)
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.__main__ import cli
from dreamer_async.tui.app import DETACHED, Dashboard
from dreamer_async.tui.draw.rows import Part, Row, cells
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.show.options import SMOOTHINGS
from dreamer_async.tui.widgets.dialogs import ConfirmStop, Help
from dreamer_async.tui.widgets.grid import grid_shape
from dreamer_async.tui.widgets.header import _machine, _machine_row
from dreamer_async.tui.widgets.panel import Panel

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parents[1] / "data" / "tui" / "catch.jsonl"
NOW = 1795388000.0
"""A few minutes after the recording."""
P = ParamSpec("P")
SIZES = [(80, 24), (120, 40), (200, 60)]


def driven(scenario: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine as a test."""

    @functools.wraps(scenario)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(scenario(*args, **kwargs))

    return test


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run directory with the recorded stream."""
    path = tmp_path / "20261122-222755-toy-catch"
    (path / "control").mkdir(parents=True)
    (path / "events.jsonl").write_bytes(RECORDED.read_bytes())
    return RunDir(path)


def append(run: RunDir, *events: Event) -> None:
    with open(run.events_path, "ab") as file:
        for event in events:
            file.write(encode_line(event, NOW, 0.0, 0))


def dashboard(run: RunDir, *, owner: bool = False) -> Dashboard:
    return Dashboard(run.path, owner=owner, clock=lambda: NOW)


async def settle(pilot: Pilot[int]) -> None:
    """Read all there is, look for the trainer twice, and show it."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    app.read_piece()
    while app.source.tail.behind:
        app.read_piece()
    app.check_trainer()
    app.check_trainer()
    app.show()
    await pilot.pause()
    while app.main.turning:
        await pilot.pause()
    app.show_now()
    await pilot.pause()


def screen(pilot: Pilot[Any]) -> list[str]:
    """The rows of text on the terminal."""
    strips = pilot.app.screen._compositor.render_strips()
    return [strip.text for strip in strips]


def text(pilot: Pilot[Any]) -> str:
    return "\n".join(screen(pilot))


def assert_filled(pilot: Pilot[int], size: tuple[int, int]) -> None:
    """Check that the text has the size of the terminal and no panel leaves it."""
    rows = screen(pilot)
    assert len(rows) == size[1]
    assert {cell_len(row) for row in rows} == {size[0]}
    if size >= (60, 24):
        for panel in pilot.app.screen.query(Panel):
            if panel.display and panel.region:
                assert pilot.app.screen.region.contains_region(panel.region), panel


@contextmanager
def trainer(run: RunDir, alive: bool = True, since: float = 1.0) -> Iterator[None]:
    """Somebody trains, since before anything was recorded, or since another time."""
    with ExitStack() as stack:
        if alive:
            with mock.patch.object(run_lock, "time", SimpleNamespace(time=lambda: since)):
                stack.enter_context(run.lock())
        yield


# --- what is on the screen ------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 33), (9, 4), (1, 1)])
@driven
async def test_odd_sizes_are_filled_too(run: RunDir, size: tuple[int, int]) -> None:
    async with dashboard(run).run_test(size=size) as pilot:
        for page in ("1", "2"):
            await pilot.press(page)
            await settle(pilot)
            assert_filled(pilot, size)


@driven
async def test_an_empty_run_says_so(tmp_path: Path) -> None:
    app = dashboard(RunDir(tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert " WAITING " in text(pilot)
        await settle(pilot)
        shown = text(pilot)
        assert " LOST " in shown and "no finished episode yet" in shown and "ETA –" in shown


@driven
async def test_before_the_first_event_the_log_says_what_is_done(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    with trainer(run):
        run.log_path.write_text("starting 4 environments ...\n[bold]reserving\x1b[2J room ...\n")
        async with dashboard(run).run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            assert "[bold]reserving[2J room ..." in text(pilot)
            assert "waiting for the trainer" not in text(pilot)


@driven
async def test_the_screen_follows_the_file(run: RunDir) -> None:
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            append(
                run,
                Warned("warning", "environment 3 was restarted"),
                Metrics(5000, 20_000, {"loss/image": 4.25, "loss/dyn": None, "return/S": 1.5}),
                Gauges(20_000, 5000, {"cpu/percent": 77.0, "opt/skipped": 2.0}),
                Episode(20_000, 0, 0.75, 9),
            )
            await settle(pilot)
            shown = text(pilot)
            for words in (
                "environment 3 was restarted",
                "image recon.",
                "4.25",
                "NaN",
                "S 1.50",
                "cpu 77%",
                "2 NaN updates skipped",
                "last 0.750",
                "20.0k / 60k",
            ):
                assert words in shown, words
            assert "at its floor" not in shown


@driven
async def test_nothing_is_shown_when_the_widgets_are_gone(run: RunDir) -> None:
    """A timer may fire once more while the app ends."""
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert app.main.ready
    assert not app.main.ready
    append(run, Episode(20_000, 0, 1.0, 5))
    app.read_piece()
    app.show()


@driven
async def test_many_curves_are_drawn_once_a_second(run: RunDir) -> None:
    clock = [NOW]
    app = Dashboard(run.path, clock=lambda: clock[0])
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        for later, score, expected in (
            (0.5, 123.0, False),
            (1.0, 124.0, True),
            (1.6, 125.0, False),
        ):
            append(run, Episode(20_000, 0, score, 5))
            app.read_piece()
            clock[0] = NOW + later
            app.show()
            await pilot.pause()
            assert (f"last {score:.0f}" in text(pilot)) == expected, later
        await pilot.press("x", "x", "x", "x")
        assert "last 125" in text(pilot), "what a person chose is drawn at once"


def test_numbers_wait_for_their_time_and_a_new_phase_does_not(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Dashboard(run.path)
    shown: list[str] = []
    monkeypatch.setattr(app, "show", lambda: shown.append(app.source.phase.name))
    monkeypatch.setattr(app._pace, "due", lambda: False)
    app.source.read_newest()
    app._paint()
    first = list(shown)
    app._paint()
    assert shown == first, "the phase is the same, and it is not time yet"
    append(run, PhaseChanged("paused", 1, 1))
    app.source.read_newest()
    app._paint()
    assert shown == [*first, "paused"]
    monkeypatch.setattr(app._pace, "due", lambda: True)
    app._paint()
    assert shown == [*first, "paused", "paused"]


@driven
async def test_a_rewritten_file_is_shown_anew(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.source.view.episode_count > 100 and "mean 1.00 " not in text(pilot)
        run.events_path.write_bytes(b"")
        append(run, Episode(7, 0, 1.0, 3))
        await settle(pilot)
        assert app.source.view.episode_count == 1
        assert "mean 1.00 " in text(pilot)


@driven
async def test_history_is_read_while_keys_work(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = dashboard(run)
    read = app.source.tail.read

    def slowly() -> Any:
        time.sleep(0.1)  # 600 lines take a minute, however fast the machine is
        return read(1)

    monkeypatch.setattr(app.source.tail, "read", slowly)
    async with app.run_test(size=(120, 40)) as pilot:
        app.show()
        await pilot.pause()
        assert not app.source.caught_up and "reading history" in text(pilot)
        await pilot.press("q")
    assert app.return_value == DETACHED and not app.source.caught_up


# --- states ---------------------------------------------------------------------------------


@driven
async def test_a_lost_trainer_is_a_state(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        with trainer(run):
            await settle(pilot)
            assert " TRAINING " in text(pilot)
        await settle(pilot)
        shown = text(pilot)
        assert (
            " LOST " in shown
            and "▲ lost  dreamer-async resume 20261122-222755-toy-catch " in shown
            and "ETA –" in shown
        )
        with trainer(run):
            await settle(pilot)
            assert " TRAINING " in text(pilot), "it may come back"
        run.path.rename(run.path.with_name("renamed"))
        await settle(pilot)
        assert "▲ lost  dreamer-async resume renamed " in text(pilot)


@driven
async def test_one_miss_is_not_a_loss(run: RunDir) -> None:
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
    app.check_trainer()
    assert app.source.phase.name == "training"


@driven
async def test_a_finished_run(run: RunDir) -> None:
    append(run, RunFinished("completed", 60_000, 20_000, 0))
    async with dashboard(run).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        shown = text(pilot)
        assert " FINISHED " in shown and "● finished  completed at step 60.0k" in shown


@driven
async def test_a_finished_run_that_somebody_has_taken_up_is_not_called_finished(
    run: RunDir,
) -> None:
    append(run, RunFinished("stopped", 9, 9, 0))
    with trainer(run, since=NOW + 60):
        app = dashboard(run)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            assert "RESUMING" in text(pilot) and "FINISHED" not in text(pilot)
            assert app.source.may_run


@driven
async def test_what_an_earlier_trainer_said_is_no_step_of_a_start(run: RunDir) -> None:
    append(run, RunFinished("stopped", 9, 9, 0))
    run.log_path.write_text("building native functions ...\n")
    with trainer(run, since=NOW + 60):
        async with dashboard(run).run_test(size=(100, 30)) as pilot:
            for written, shown in ((NOW, False), (NOW + 61, True)):
                os.utime(run.log_path, (written, written))
                await settle(pilot)
                assert "RESUMING" in text(pilot)
                assert ("building native functions ..." in text(pilot)) == shown


@driven
async def test_a_killed_run_is_resuming_until_it_trains(run: RunDir) -> None:
    with trainer(run, since=NOW + 60):
        app = dashboard(run)
        async with app.run_test(size=(100, 30)) as pilot:
            await settle(pilot)
            assert "RESUMING" in text(pilot), "nothing was heard of it yet"
            for name, shown in (
                ("starting", "RESUMING"),
                ("compiling", "RESUMING"),
                ("prefill", "RESUMING"),
                ("training", " TRAINING "),
            ):
                with open(run.events_path, "ab") as file:
                    file.write(encode_line(PhaseChanged(name, 9, 9), NOW + 61, 0.0, 1))
                await settle(pilot)
                assert shown in text(pilot), name
                assert (f"resuming: {name}" in text(pilot)) == (name != "training")


@driven
async def test_a_failed_run(run: RunDir) -> None:
    append(run, RunFinished("failed", 9, 9, 70, "ten updates in a row were not finite"))
    async with dashboard(run).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert " FAILED " in text(pilot) and "ten updates in a row" in text(pilot)


@driven
async def test_compiling_has_a_timer(run: RunDir) -> None:
    with open(run.events_path, "ab") as file:
        file.write(encode_line(PhaseChanged("compiling", 0, 0), NOW - 187, 0.0, 0))
    with trainer(run):
        async with dashboard(run).run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            assert " COMPILING 3m07s " in text(pilot)


@driven
async def test_a_started_trainer_may_take_its_time(run: RunDir) -> None:
    now = [NOW]
    app = Dashboard(run.path, owner=True, clock=lambda: now[0])
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.source.phase.name != "lost"
        now[0] += 60
        await settle(pilot)
        assert app.source.phase.name == "lost"


# --- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
@driven
async def test_detaching_asks_nothing_and_requests_nothing(run: RunDir, key: str) -> None:
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press(key)
        assert app.return_value == DETACHED
        assert run.take_requests() == []


@driven
async def test_stopping_asks_first(run: RunDir) -> None:
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            for answer in ("n", "escape", "enter"):
                await pilot.press("Q")
                assert isinstance(app.screen, ConfirmStop)
                await pilot.press(answer)
                assert not isinstance(app.screen, ConfirmStop)
                assert run.take_requests() == [], answer
            await pilot.press("Q", "y")
            await pilot.pause()
            assert [request.command for request in run.take_requests()] == ["stop"]
            assert " STOPPING 0s " in text(pilot)
            await pilot.press("Q")
            assert not isinstance(app.screen, ConfirmStop), "asked already"
            append(run, RunFinished("stopped", 9, 9, 0))
            await settle(pilot)
    assert app.return_value == exit_codes.STOPPED_BY_OWNER


@driven
async def test_pausing_and_saving_are_asked_for_and_answered(run: RunDir) -> None:
    app = dashboard(run)
    append(run, Controlled("pause", "refused", "an answer to somebody else"))
    with trainer(run):
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            assert not list(app._notifications), "old answers are not repeated"
            for key, phase, asked, answer, words in (
                ("p", "paused", "pause", "done", "the run is paused"),
                ("c", "paused", "checkpoint", "accepted", "the trainer saves a checkpoint"),
                ("p", "training", "resume", "done", "the run continues"),
                ("p", "training", "pause", "refused", "pause refused"),
            ):
                await pilot.press(key)
                assert [request.command for request in run.take_requests()] == [asked]
                assert list(app._notifications)[-1].message.startswith("asked the trainer to ")
                append(run, Controlled(asked, answer, "[b]why"), PhaseChanged(phase, 9, 9))
                await settle(pilot)
                said = list(app._notifications)[-1]
                assert said.message == f"{words}: [b]why" and not said.markup
                assert said.severity == ("warning" if answer == "refused" else "information")
                assert f" {phase.upper()} " in text(pilot)


@driven
async def test_a_run_without_a_trainer_cannot_be_paused(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("p", "c")
        assert run.take_requests() == []
        assert "no trainer" in list(app._notifications)[-1].message


@driven
async def test_the_button_stops_too(run: RunDir) -> None:
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press("Q", "tab", "enter")
            await pilot.pause()
            assert len(run.take_requests()) == 1
            await pilot.press("q")
    assert app.return_value == DETACHED, "one may leave while it stops"


@driven
async def test_a_stop_ends_when_the_trainer_is_gone(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        with trainer(run):
            await settle(pilot)
            await pilot.press("Q", "y")
        await settle(pilot)
    assert app.return_value == exit_codes.STOPPED_BY_OWNER


@pytest.mark.parametrize("key", ["Q", "ctrl+c"])
@driven
async def test_nothing_is_asked_of_a_finished_run(run: RunDir, key: str) -> None:
    append(run, RunFinished("completed", 9, 9, 0))
    app = dashboard(run, owner=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press(key)
    assert app.return_value == exit_codes.STOPPED_BY_OWNER
    assert run.take_requests() == []


@driven
async def test_ctrl_c_of_the_owner_stops_without_a_question(run: RunDir) -> None:
    app = dashboard(run, owner=True)
    with trainer(run):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press("Q", "ctrl+c", "ctrl+c")
            assert [request.command for request in run.take_requests()] == ["stop"]
            append(run, RunFinished("stopped", 9, 9, 0))
            await settle(pilot)
    assert app.return_value == exit_codes.STOPPED_BY_OWNER


@driven
async def test_a_request_that_cannot_be_written_is_told(run: RunDir) -> None:
    app = dashboard(run)
    with trainer(run):
        run.control.rmdir()
        run.control.touch()
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await settle(pilot)
            await pilot.press("Q", "y")
            await pilot.pause()
            told = [notification.message for notification in app._notifications]
            assert len(told) == 1 and "could not be written" in told[0]
            assert app.source.trainer.stop_requested_at is None


@driven
async def test_help_lists_the_real_bindings(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 60)) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        await pilot.pause()
        shown = text(pilot)
        for binding in (*Dashboard.BINDINGS, *type(app.main).BINDINGS):
            what = getattr(binding, "tooltip", "")
            assert what and what in shown, what
        for key in ("^q", "^c", "?", "tab", "^p"):
            assert key in shown
        assert shown.index("Detach") < shown.index("Overview: ") < shown.index("Next page")
        await pilot.press("q")
        assert not isinstance(app.screen, Help)


@driven
async def test_axis_smoothing_theme_and_pages(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("tab")
        await pilot.pause()
        assert "return scale S" not in text(pilot)
        assert "log where it helps" in text(pilot)
        for words in ("log axis", "linear axis", "log where it helps"):
            await pilot.press("y")
            assert words in text(pilot)
        await pilot.press("shift+tab")
        await pilot.pause()
        assert "return scale S" in text(pilot)
        for smoothing in (*SMOOTHINGS[1:], SMOOTHINGS[0]):
            await pilot.press("s")
            stated = f"returns  mean of {smoothing} " in text(pilot)
            assert stated == (smoothing > 1)
        themes = []
        for _ in range(3):
            themes.append(app.theme)
            await pilot.press("t")
        assert app.theme == themes[0] and len(set(themes)) == 3


def test_the_palette_offers_what_the_keys_do_and_nothing_else(run: RunDir) -> None:
    app = dashboard(run)
    offered = list(app.get_system_commands(Screen[object]()))
    titles = [command.title for command in offered]
    assert len(set(titles)) == len(titles) > 20
    assert {"Save a checkpoint now", "World model: ask for a new film"} <= set(titles)
    assert not any(word in " ".join(titles) for word in ("Textual", "Maximize", "Quit"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@driven
async def test_toasts_cover_neither_keys_nor_warnings(run: RunDir, size: tuple[int, int]) -> None:
    app = dashboard(run)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        for number in range(9):
            app._say(f"[b]{number} " + "many words " * 30)
        toasts = []
        for _ in range(100):  # they come with the next layout
            await pilot.pause(0.02)
            toasts = [toast.region for toast in app.screen.query(Toast) if toast.region]
            if toasts and "[b]8 many" in text(pilot):
                break
        assert len(toasts) == 1 and "[b]8 many" in text(pilot)
        for name in ("#header", "#alerts", "#keys"):
            place = app.main.query_one(name).region
            assert not any(toast.overlaps(place) for toast in toasts), name


@driven
async def test_palette_and_its_themes(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert len(app.screen_stack) == 2
        append(run, Episode(1, 0, 1.0, 1))
        await settle(pilot)
        await pilot.press(*"losses and")
        for _ in range(100):  # it looks in a worker
            await pilot.pause(0.02)
            if "Losses and all other metrics" in text(pilot):
                break
        assert "key 2" in text(pilot)
        for _ in range(3):  # the first one may choose, and the next one run
            if len(app.screen_stack) == 2:
                await pilot.press("enter")
                await pilot.pause(0.2)
        assert app.main.page.id == "losses" and len(app.screen_stack) == 1
        await pilot.press("1")
        app.theme = "textual-light"
        await settle(pilot)
        assert "returns" in text(pilot)


@driven
async def test_all_keys_of_the_footer_fit_80_columns(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        footer = screen(pilot)[-1]
        for words in ("1 overview", "2", "3", "4", "5", "6", "? help", "q close", "r runs"):
            assert words in footer
        assert "p pause" not in footer, "nobody trains"
        with trainer(run):
            await settle(pilot)
            footer = screen(pilot)[-1]
            for words in ("? help", "q detach", "p pause", "c save", "Q stop"):
                assert words in footer


# --- hostile text ---------------------------------------------------------------------------

EVIL = (
    "[@click=app.quit]x[/]",
    "\x1b[2J\x1b]0;owned\x07",
    "reward[/]",
    "[bold",
    "x" * 10_000,
    "\u202egnp.exe",
    "多" * 200,
    "a\nb\rc",
    "",
)


@pytest.mark.parametrize("size", SIZES[:2])
@driven
async def test_hostile_text_is_text(tmp_path: Path, size: tuple[int, int]) -> None:
    run = RunDir(tmp_path / "[@click=app.quit]run[/]")
    run.control.mkdir(parents=True)
    for evil in EVIL:
        append(
            run,
            RunStarted(
                *(evil, evil, evil, evil, 1, evil, evil, 1, 10, 1, 1.0, 0, False, True, 1, 1, 1),
                evil,
            ),
            PhaseChanged(evil, 0, 0),
            Metrics(1, 1, {evil: 1.0, f"loss/{evil}": 2.0, "return/S": 3.0}),
            Gauges(1, 1, {evil: 1.0, f"stage/{evil}": 0.5}),
            Warned(evil, evil),
        )
    app = dashboard(run)
    with trainer(run):
        async with app.run_test(size=size) as pilot:
            for key in ("1", "2"):
                await pilot.press(key)
                await settle(pilot)
                places = [(row.find("click"), y) for y, row in enumerate(screen(pilot))]
                for offset in [place for place in places if place[0] >= 0]:
                    await pilot.click(offset=offset)
            assert app.is_running and app.return_value is None
            assert len(app.screen_stack) == 1
            assert_filled(pilot, size)
            shown = text(pilot)
            assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
            assert "\x1b]0;owned" not in app.export_screenshot()


@pytest.mark.parametrize("when", [1e300, -1e300, 1e17, 0.0])
@driven
async def test_no_time_breaks_a_page(run: RunDir, when: float) -> None:
    """The clock of the trainer, or of this machine, may be anything."""
    with open(run.events_path, "ab") as file:
        for event in (
            PhaseChanged("paused", 1, 1),
            Episode(20_000, 0, 1.0, 5),
            Evaluated(20_000, 5, (1.0,), (5,), 1.0),
            Warned("warning", "the clock jumped"),
            Checkpointed("checkpoints/step-1", 1, 1, 1, 1.0),
        ):
            file.write(encode_line(event, when, 0.0, 0))
    clock = [NOW]
    with trainer(run):
        app = Dashboard(run.path, clock=lambda: clock[0])
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            for clock[0] in (NOW, when, 0.0):
                for key in "1356":
                    await pilot.press(key)
                    await settle(pilot)
                    assert_filled(pilot, (80, 24))
                assert "the clock jumped" in text(pilot)


@driven
async def test_markup_in_a_warning_is_shown_as_it_is(run: RunDir) -> None:
    append(run, Warned("warning", EVIL[0]))
    async with dashboard(run).run_test(size=(120, 40)) as pilot:
        with trainer(run):
            await settle(pilot)
            assert EVIL[0] in text(pilot)


# --- the process ----------------------------------------------------------------------------


def test_no_torch_in_the_dashboard() -> None:
    code = (
        "import sys, dreamer_async.tui.app, dreamer_async.tui.__main__\n"
        "import dreamer_async.store.events, dreamer_async.store.run_dir\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'dreamer_async.envs', 'envpool')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_screenshot(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    assert cli([str(run.path), "--screenshot", str(out), "--size", "80x24"]) == 0
    svg = out.read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "returns" in svg and "LOST" in svg


@pytest.mark.parametrize(
    "arguments",
    [
        ["/nowhere/at/all"],
        [".", "--screenshot", "x.svg", "--size", "wide"],
        [".", "--screenshot", "x.svg", "--size", "0x10"],
        [],
    ],
)
def test_wrong_arguments_end_with_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ssh", "options", "plays"), [(False, [], True), (True, [], False), (True, ["--animate"], True)]
)
def test_films_stand_still_over_ssh_unless_asked(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, ssh: bool, options: list[str], plays: bool
) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    if ssh:
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    seen: list[bool] = []
    monkeypatch.setattr(Dashboard, "run", lambda app: seen.append(app.main._play_films))
    assert cli([str(run.path), "--web", *options]) == 0
    assert seen == [plays]


def everything(run: RunDir) -> dict[str, tuple[int, bytes]]:
    """Every file of a run: when it was changed, and what is in it."""
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@driven
async def test_attaching_and_detaching_leaves_no_trace(run: RunDir) -> None:
    """Neither in the run directory nor as open files; all pages were looked at."""
    with trainer(run):
        before, open_files = everything(run), None
        for _ in range(2):
            app = dashboard(run)
            async with app.run_test(size=(80, 24)) as pilot:
                await settle(pilot)
                await pilot.press(*"1234567q")
            now = len(list(Path("/proc/self/fd").iterdir()))
            assert open_files is None or now <= open_files
            open_files = now
        assert everything(run) == before


def test_the_header_names_gpu_and_its_memory(run: RunDir) -> None:
    gauges = {"gpu/percent": 87.0, "gpu/used_gb": 12.3, "gpu/total_gb": 80.0, "cpu/percent": 9.0}
    append(run, Gauges(1, 1, gauges))
    view = rebuild(read_events(run.events_path)[0])
    shown = "".join(part.text for row in _machine(view) for part in row)
    assert shown == "  cpu 9%  ram 348 MB  gpu 87%  vram 12.3 of 80 GB"


@pytest.mark.parametrize("width", range(40, 90))
def test_the_header_leaves_out_what_does_not_fit_and_cuts_nothing(width: int) -> None:
    setup = ["toy/catch_pixels", "toy 1.23M parameters", "cpu float32", "8 envs"]
    machine: list[Row] = [[Part("  cpu 14%")], [Part("  ram 0.409 GB")]]
    row = _machine_row(setup, machine, width)
    assert cells(row) == width
    assert ("…" in "".join(part.text for part in row)) == (width < 55), "the first three stay"


def test_a_run_that_is_renamed_is_followed(run: RunDir) -> None:
    source, moved = Source(run.path), RunDir(run.path.with_name("renamed"))
    with trainer(run):
        source.open()
        source.read_newest()
        source.check_trainer()
        run.path.rename(moved.path)
        run.path.mkdir()  # something else has its place
        append(moved, Gauges(77_000, 1, {}))
        for _ in range(3):
            source.check_trainer()
        source.read_newest()
        assert source.phase.name == "training" and source.view.env_steps == 77_000
        assert source.run_dir == moved
    rmtree(moved.path)
    for _ in range(3):
        source.check_trainer()
    assert source.phase.name == "lost" and source.run_dir == moved
    source.close()


@pytest.mark.parametrize(("page", "tab"), [("losses", "2 losses"), ("world", "4 world")])
@driven
async def test_a_page_may_be_open_at_first(run: RunDir, page: str, tab: str) -> None:
    app = Dashboard(run.path, clock=lambda: NOW, page=page)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.main.page.id == page and tab in text(pilot)
        await pilot.press("2")
        await settle(pilot)
        assert app.main.page.id == "losses" and "vector recon." in text(pilot)


# --- the grid -------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [0, 1, 9, 10, 13, 24])
@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("size", [(78, 18), (79, 22), (140, 30), (10, 3), (0, 0)])
def test_the_grid_has_a_place_for_every_chart(
    required: int, extra: int, size: tuple[int, int]
) -> None:
    columns, rows = grid_shape(required, required + extra, *size)
    assert columns * rows >= required
    assert columns == 1 or size[0] // columns >= 22
    assert columns * (rows - 1) < max(1, required + extra)


def test_the_grid_likes_full_rows_of_wide_charts() -> None:
    assert grid_shape(10, 12, 79, 21) == (3, 4)
    assert grid_shape(10, 12, 78, 17) == (3, 4)
