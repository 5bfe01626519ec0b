"""The tables of docs/learning.md say what the curves beside them say, and the published ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.scores.curves import Band, Published, find, verdict
from dreamer_async.scores.learning import Curve, read_curves

DOCS = Path(__file__).resolve().parents[2] / "docs"
SUITE = "dmc-proprio"
PAPER, HIGHER = "size1m", "size1m, rate 1.6e-4"
"""Groups of the first table, and of that of the higher rate, whose last column is of the first."""
WORDS = {"ahead": "above", "on track": "inside", "behind": "below"}
"""What the tables call a verdict."""


@dataclass(frozen=True)
class Row:
    """What a table says of one run, up to one number of frames."""

    group: str
    task: str
    """suite/task; the table names the suite where it is not SUITE."""
    seed: int
    frames: int
    score: float
    band: tuple[float, float, float]
    """Median, least and largest of the published runs."""
    verdict: str
    at_papers_rate: float | None


def rows(text: str) -> Iterator[Row]:
    """All rows of the tables that have a column `up to frame`."""
    group, task, seed = "", "", 0
    for line in text.splitlines():
        cells = [cell.strip(" *") for cell in line.removesuffix("|").split("|")[1:]]
        if "up to frame" in cells:
            group = HIGHER if "1.6e-4" in cells[0] else PAPER
        elif not cells:
            group = ""
        elif group and "---" not in cells[0]:
            if cells[0]:
                task, seed = run_of(cells[0].split(" (")[0])
            frames, score = map(number, cells[2:4])
            median, low, high = map(float, re.findall(r"\d+", cells[4]))  # median (low to high)
            said = re.split(r"\W", cells[5])[0]
            last = number(cells[6]) if len(cells) > 6 and cells[6] else None
            yield Row(group, task, seed, int(frames), score, (median, low, high), said, last)


def run_of(words: str) -> tuple[str, int]:
    """suite/task and seed of `task, seed`."""
    task, seed = words.split(", ")
    return (task if "/" in task else f"{SUITE}/{task}"), int(seed)


def number(cell: str) -> float:
    """The first one of a cell, which may have commas."""
    return float(re.findall(r"-?[\d,.]*\d", cell)[0].replace(",", ""))


ROWS = list(rows((DOCS / "learning.md").read_text(encoding="utf-8")))
CURVES = [curve for path in (DOCS / "learning").glob("dmc_*.csv") for curve in read_curves(path)]


def faults(row: Row) -> list[str]:
    """What a row says otherwise than the curves."""
    score, band = measured(row.group, row), published(row)
    placed = WORDS[verdict(score, band)]
    pairs = zip((row.score, *row.band), (score, band.median, band.low, band.high), strict=True)
    found = [f"{said} is {is_:.1f}" for said, is_ in pairs if abs(said - is_) > 0.6]
    if row.at_papers_rate is not None and abs(row.at_papers_rate - measured(PAPER, row)) > 0.6:
        found.append(f"at the paper's rate it is {measured(PAPER, row):.1f}")
    return [*found, *([] if placed == row.verdict else [f"it is {placed}"])]


def measured(group: str, row: Row) -> float:
    """Mean return of the training episodes that end within the row's bin, as `scores` has it."""
    (curve,) = (each for each in CURVES if is_of(each, group, row))
    frames, returns = map(np.array, curve.column("return", "frames"))
    first = row.frames - published_curve(row).frames[0]
    return float(returns[(frames > first) & (frames <= row.frames)].mean())


def is_of(curve: Curve, group: str, row: Row | ByHour) -> bool:
    return (curve.task, curve.group, curve.seed) == (row.task, group, row.seed)


def published(row: Row) -> Band:
    band = published_curve(row).inside(row.frames)
    assert band is not None
    return band


def published_curve(row: Row) -> Published:
    """What was published of its task, in bins that are as wide as the first one."""
    suite, _, task = row.task.partition("/")
    curve = find(suite, task)
    assert curve is not None
    return curve


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.task}-{row.group}-{row.frames}")
def test_a_row_says_what_the_curves_say(row: Row) -> None:
    assert faults(row) == []


def test_a_wrong_row_is_noticed() -> None:
    row = next(each for each in ROWS if each.at_papers_rate is not None)
    median, low, high = row.band
    wrong = (
        replace(row, score=row.score + 1),
        replace(row, band=(median + 1, low, high)),
        replace(row, verdict="below" if row.verdict != "below" else "above"),
        replace(row, at_papers_rate=0.0),
    )
    assert [len(faults(each)) for each in wrong] == [1, 1, 1, 1]


@dataclass(frozen=True)
class ByHour:
    """What the table of returns by the hour says of one run, after a number of minutes."""

    group: str
    task: str
    seed: int
    minutes: float
    updates: float
    steps: float
    score: float | None
    """None before the first episodes have ended."""


GROUPS = {
    "as published": PAPER,
    "1.6e-4": HIGHER,
    "8x32, ratio 128, 1.6e-4": "lockstep, 8x32, ratio 128",
}
"""Settings of the table of returns by the hour: the groups of their runs."""


def by_hour(text: str) -> Iterator[ByHour]:
    """All cells of the table whose first column is `run: setting`."""
    table = text.partition("| run: setting |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        run, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        named, setting = run.split(": ")
        for minutes, cell in zip((20.0, 60.0), cells, strict=True):
            if end := re.match(r"complete after (\d+) minutes: ", cell):
                minutes, cell = float(end[1]), cell[end.end() :]
            updates, steps, score = cell.replace("*", "").split(", ")
            said = None if score.startswith("no ") else number(score)
            yield ByHour(
                *(GROUPS[setting], *run_of(named), minutes),
                *(number(updates), number(steps), said),
            )


def after(curve: Curve, minutes: float) -> tuple[float, float, float | None]:
    """Updates, agent steps, and the mean return of the last eight episodes."""
    seen = [point for point in curve.points if point["hours"] * 60 <= minutes]
    newest = max(seen, key=lambda point: point["hours"])
    assert newest["hours"] * 60 > minutes - 1, "the curve ends before"
    returns = [point["return"] for point in seen if "return" in point]
    return newest["update"], newest["step"], float(np.mean(returns[-8:])) if returns else None


def hourly_faults(said: ByHour) -> list[str]:
    """What the table says otherwise than the curves."""
    (curve,) = (c for c in HOURLY_CURVES if is_of(c, said.group, said))
    *done, score = after(curve, said.minutes)
    found = [
        f"{a:,.0f} is {b:.0f}"
        for a, b in zip((said.updates, said.steps), done, strict=True)
        if abs(a - b) > 0.6
    ]
    if (score is None) != (said.score is None) or abs((score or 0) - (said.score or 0)) > 0.6:
        found.append(f"{said.score} is {score}")
    return found


HOURLY = list(by_hour((DOCS / "learning.md").read_text(encoding="utf-8")))
HOURLY_CURVES = [*CURVES, *read_curves(DOCS / "learning" / "lockstep_finger_spin.csv")]


@pytest.mark.parametrize("said", HOURLY, ids=lambda s: f"{s.task}-{s.seed}-{s.group}-{s.minutes}")
def test_returns_by_the_hour_are_those_of_the_curves(said: ByHour) -> None:
    assert hourly_faults(said) == []


def test_a_wrong_return_by_the_hour_is_noticed() -> None:
    first, second = HOURLY[:2]
    assert first.score is None and second.score is not None
    wrong = (
        replace(first, score=1.0),
        replace(first, steps=first.steps + 1),
        replace(second, score=None),
        replace(second, updates=second.updates - 1, score=second.score + 1),
    )
    assert [len(hourly_faults(each)) for each in wrong] == [1, 1, 1, 2]


def test_every_run_by_the_published_protocol_has_its_rows() -> None:
    told = {(row.group, row.task, row.seed) for row in ROWS}
    ran = {(c.group, c.task, c.seed) for c in CURVES if c.group in {PAPER, HIGHER}}
    assert told == ran
