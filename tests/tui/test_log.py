"""Finding words in the log: where they stand, how they are marked, what the keys do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamer_async.store.events import Warned
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.pages.log import Log
from dreamer_async.tui.show.find import broken, occurrences
from tests.tui.test_app import RECORDED, append, dashboard, driven, settle, text


@pytest.mark.parametrize(
    ("line", "words", "found"),
    [
        ("saved a.b (1 MB)", "a.b", [(6, 9)]),
        ("Saved, saved", "saved", [(0, 5), (7, 12)]),
        ("Saved, saved", "Saved", [(0, 5)]),
        ("aaaa", "aa", [(0, 2), (2, 4)]),
        ("[bold] (x*", "(x*", [(7, 10)]),
        ("abc", "", []),
        ("abc", "abcd", []),
        ("İ is two letters when small", "two", [(5, 8)]),
    ],
)
def test_capitals_match_capitals_only(line: str, words: str, found: list[tuple[int, int]]) -> None:
    assert occurrences(line, words) == found


@given(st.text(alphabet="ab 漢", max_size=60), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_broken_lines_lose_nothing_and_fit(line: str, width: int) -> None:
    from rich.cells import cell_len

    pieces = broken(line, width)
    assert "".join(line[start:stop] for start, stop in pieces) == line
    for start, stop in pieces:
        assert cell_len(line[start:stop].rstrip(" ")) <= max(width, 2)
        assert stop > start or not line


def test_lines_break_at_spaces() -> None:
    words = "one two three"
    assert [words[a:b] for a, b in broken(words, 7)] == ["one two ", "three"]
    assert [words[a:b] for a, b in broken(words, 2)] == ["on", "e ", "tw", "o ", "th", "re", "e"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    run.events_path.write_bytes(RECORDED.read_bytes())
    for number in range(40):
        append(run, Warned("warning", f"[b]Environment {number}[/b] was restarted"))
    append(run, Warned("info", f"{'long ' * 20}and its End"))
    return run


@driven
async def test_words_are_found_marked_and_counted(run: RunDir) -> None:
    app = dashboard(run)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("6")
        await settle(pilot)
        assert " End  " in text(pilot), "a long line is there to its end"
        await pilot.press("slash", *"saved")
        assert "/saved  5 of 5 (n, N)" in text(pilot), "while it is typed"
        await pilot.press("enter", "n")
        assert "/saved  1 of 5" in text(pilot) and "saved checkpoints" in text(pilot)
        await pilot.press("N", "N")
        assert "/saved  4 of 5" in text(pilot)
        page = app.main.page
        assert isinstance(page, Log)
        looks = [[part for part in page._row(n) if part.look in LOOKS] for n in range(9)]
        marked = [parts[0] for parts in looks if parts]
        assert [part.text for part in marked] == ["saved"] * 5
        assert [part.look for part in marked] == [*["found"] * 3, "found-here", "found"]
        await pilot.press("slash", *["backspace"] * 5, *"environment 3", "escape")
        assert "/saved  4 of 5" in text(pilot) or "/saved" in text(pilot), "escape leaves it"
        await pilot.press("slash", *["backspace"] * 5, *"[b]Environment 39", "enter")
        assert "1 of 1" in text(pilot) and "[b]Environment 39[/b]" in text(pilot)
        await pilot.press("slash", *["backspace"] * 40, *"its End", "enter")
        assert "1 of 1" in text(pilot)
        await pilot.press("slash", *["backspace"] * 40, *"its eND", "enter")
        assert "in no line" in text(pilot)
        await pilot.press("n", "N", "slash", *["backspace"] * 40, "enter")
        assert "in no line" not in text(pilot) and " of 1" not in text(pilot)


LOOKS = ("found", "found-here")


@driven
async def test_elsewhere_the_same_key_filters(run: RunDir) -> None:
    async with dashboard(run).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("n", "N", "slash", *"kl", "enter")
        await settle(pilot)
        assert "/kl" in text(pilot) and "dynamics KL" in text(pilot)
