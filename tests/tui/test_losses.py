"""The page of all metrics: groups, pages, and which one is chosen."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from textual.pilot import Pilot

from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.show.names import GROUPS, LABELS, grouped, ordered
from dreamer_async.tui.widgets.metric import MetricScreen
from dreamer_async.tui.widgets.sections import Section, page_of, paged, shared
from tests.tui.test_app import RECORDED, dashboard, driven, settle, text


def test_every_metric_is_in_one_group() -> None:
    names = [*LABELS, "loss/image", "return/S", "adv/std", "opt/lr", "mine/own", "plain"]
    groups = dict(grouped(names))
    assert sorted(name for part in groups.values() for name in part) == sorted(names)
    assert tuple(groups) == GROUPS
    assert groups["world model"][0] == "loss/image" and "loss/dyn" in groups["world model"]
    assert groups["policy"][:2] == ["loss/actor", "policy/entropy"]
    assert groups["others"] == ["mine/own", "plain"]
    assert grouped([]) == [] and dict(grouped(["opt/lr"])) == {"optimiser": ["opt/lr"]}
    assert groups["optimiser"] == [n for n in ordered(names) if n in groups["optimiser"]]


@pytest.mark.parametrize("rows", [1, 4, 9, 18, 34, 200])
@pytest.mark.parametrize("columns", [1, 3, 7])
def test_pages_hold_all_charts_in_their_order_and_no_more_than_fits(
    rows: int, columns: int
) -> None:
    groups = [("one", 7), ("two", 1), ("three", 11), ("four", 4)]
    pages = paged(groups, columns, rows, 4)
    sections = [section for page in pages for section in page]
    assert sections[0].first == 0 and sections[-1].stop == 23
    assert all(a.stop == b.first for a, b in pairwise(sections))
    for title, count in groups:
        parts = [section for section in sections if section.title == title]
        assert sum(part.charts for part in parts) == count
        assert [part.continued for part in parts] == [place > 0 for place in range(len(parts))]
    for page in pages:
        taken = sum(1 + 4 * math.ceil(section.charts / columns) for section in page)
        assert taken <= max(rows, 5), "a line of charts is shown however low the page is"
    assert [page_of(section.first, pages) for section in sections] == [
        number for number, page in enumerate(pages) for _ in page
    ]
    assert page_of(22, pages) == len(pages) - 1


def test_a_page_without_charts() -> None:
    assert paged([], 3, 20, 4) == [[]]
    assert shared(20, []) == []


def test_lines_of_charts_share_what_the_captions_leave() -> None:
    assert shared(34, [2, 3]) == [12, 20] and shared(18, [3, 1]) == [12, 4]
    assert sum(shared(33, [1, 1, 2])) == 30
    assert shared(2, [1, 1]) == [1, 1], "at least their titles"
    assert Section("a", 4, 3, False).stop == 7


@driven
async def test_all_metrics_are_paged_and_i_begins_with_the_chosen_one(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    run.events_path.write_bytes(RECORDED.read_bytes())
    async with dashboard(run).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("2")
        await settle(pilot)
        first = text(pilot)
        assert "1-10 of 34" in first and "world model" in first and "▸ vector recon." in first
        seen = [first]
        for _ in range(4):  # the last time there is no further page
            await pilot.press("pagedown")
            await settle(pilot)
            seen.append(text(pilot))
        counters = [found[0] for page in seen if (found := re.findall(r"\d+-\d+ of 34", page))]
        ends = [tuple(map(int, counter.split()[0].split("-"))) for counter in counters]
        assert ends[3] == ends[4] and ends[3][1] == 34 and ends[0] == (1, 10)
        assert all(after[0] == before[1] + 1 for before, after in pairwise(ends[:4]))
        assert all(any(f"{name} " in page for page in seen) for name in ("opt/lr", "adv/std"))
        await pilot.press("pageup", "down", "i")
        await pilot.pause()
        assert isinstance(pilot.app.screen, MetricScreen)
        names = [name for _, part in grouped(dashboard_names(pilot)) for name in part]
        assert f" {names[ends[2][0]]} (" in text(pilot), "the second one of that page"
        await pilot.press("escape", "up", "up")
        await settle(pilot)
        assert counters[1] in text(pilot), "to the last of the page before"
        await pilot.press("pageup", "pageup", "up")
        await settle(pilot)
        assert counters[3] in text(pilot), "round the end"


def dashboard_names(pilot: Pilot[int]) -> list[str]:
    app = pilot.app
    assert isinstance(app, Dashboard)
    return list(app.source.view.latest)
