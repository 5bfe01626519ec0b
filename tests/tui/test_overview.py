"""The overview: what is drawn behind the returns, stages, alarms and keys."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from dreamer_async.store.events import Episode, PhaseChanged, Record
from dreamer_async.tui.draw.axis import Scale, even
from dreamer_async.tui.draw.chart import mark_places, thickened
from dreamer_async.tui.draw.rows import Part, cells
from dreamer_async.tui.draw.text import ascii_only
from dreamer_async.tui.main_screen import KEYS, TABS
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show import alarms, pictures, stages
from dreamer_async.tui.show.names import label
from dreamer_async.tui.show.options import Options
from dreamer_async.tui.show.stages import Strip, Wait
from dreamer_async.tui.widgets.chart import Chart, _step_labels, _value_labels
from dreamer_async.tui.widgets.keybar import KeyBar
from dreamer_async.tui.widgets.lines import AlertLine
from dreamer_async.tui.widgets.strips import Strips, stacked
from tests.tui.test_pages import gauges_view
from tests.tui.test_published import STARTED, view

TOY = replace(STARTED, suite="toy", task="catch")


def words(row: object) -> str:
    return "".join(part.text for part in row)  # type: ignore[attr-defined]


# --- returns ----------------------------------------------------------------------------------


def scored(scores: list[float], suite: str = "toy", task: str = "catch") -> RunView:
    episodes = [Episode(50 * (i + 1), 0, score, 100) for i, score in enumerate(scores)]
    started = replace(STARTED, suite=suite, task=task)
    events = [started, *episodes, PhaseChanged("training", 50 * len(scores), 1)]
    return rebuild([Record(event, 0.0, 0.0, 0) for event in events])


def test_quartiles_lie_behind_a_mean_that_carries() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(5000).tolist()
    picture = pictures.returns(scored(scores), Options())
    assert [curve.thick for curve in picture.curves] == [False, True]
    (band,) = [ground.trace for ground in picture.grounds]
    assert len(band.x) <= pictures.QUARTILES_AT < len(scores)
    assert band.low is not None and band.high is not None
    assert band.x[-1] == 50 * 5000
    assert (band.low[-1], band.high[-1]) == tuple(np.percentile(scores[-20:], (25, 75)))
    assert band.low[-1] > min(scores[-20:]), "not the range"


def test_a_zoomed_band_has_as_many_places() -> None:
    zoom = Options(zoom=Options().zoom.closer().closer())
    shown = scored(list(np.arange(5000.0)))
    band = pictures.returns(shown, zoom).grounds[0].trace
    low, high = pictures.window(shown, zoom) or (0.0, 0.0)
    assert len(band.x) == pictures.QUARTILES_AT and low <= band.x[0] and band.x[-1] <= high


def test_a_thick_line_is_two_dots_high() -> None:
    canvas = np.zeros((8, 4), bool)
    canvas[3, 0] = canvas[7, 1] = True
    assert np.argwhere(thickened(canvas)).tolist() == [[3, 0], [4, 0], [6, 1], [7, 1]]


@pytest.mark.parametrize(
    ("suite", "task", "best", "drawn", "said"),
    [
        ("toy", "catch", 1.0, [1.0], "optimum 1.00"),
        ("toy", "catch", 0.3, [1.0], "optimum 1.00"),
        ("toy", "seek", 1.0, [], "optimum 6.75"),  # far above all returns: only named
        ("atari", "pong", 20.0, [14.6], "human 14.6"),
        ("dmc-proprio", "walker_walk", 900.0, [1000.0], "most 1.00k"),
        ("classic", "pendulum", 1.0, [], "no reference"),
    ],
)
def test_what_is_known_is_drawn(
    suite: str, task: str, best: float, drawn: list[float], said: str
) -> None:
    picture = pictures.returns(scored([-1.0, best] * 30, suite, task), Options())
    assert picture.references == drawn
    legend = " ".join(words(entry[0]) for entry in picture.legend)
    assert said in legend


def test_the_verdict_stands_beside_the_returns() -> None:
    rising = pictures.returns(scored([*np.linspace(-1.0, 0.5, 400)]), Options())
    assert words(rising.value).startswith("learning: +") and rising.value[0].look == "good"
    assert "published" not in words(rising.value), "there is no curve of catch"


@pytest.mark.parametrize(
    ("score", "said"),
    [(20.0, "on the published"), (-21.0, "behind the published"), (1e3, "ahead of the published")],
)
def test_the_verdict_knows_the_published_curve(score: float, said: str) -> None:
    picture = pictures.returns(view(score, 40_000_000), Options())
    assert said in words(picture.value) and said not in words(picture.brief)
    other = pictures.returns(view(score, 40_000_000, replace(STARTED, size="size12m")), Options())
    assert "published" not in words(other.value), "another size"


# --- axes and marks ---------------------------------------------------------------------------


@pytest.mark.parametrize("height", [6, 8, 12, 15, 40])
@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 958.0), (0.0, 1.0), (-8.7, 18.9)])
def test_labels_lie_equally_far_apart(low: float, high: float, height: int) -> None:
    up = even(Scale(low, high), height)
    assert up.low <= low + 1e-9 and up.high >= high - 1e-9
    assert up.high - up.low <= 1.3 * (high - low)
    rows = sorted(_value_labels(up, height))
    assert len(rows) > 1
    steps = np.diff(rows)
    assert steps.max() == steps.min()


@pytest.mark.parametrize("width", [30, 45, 80, 200])
@pytest.mark.parametrize("last", [13_100.0, 40e6, 1.0, 0.07])
def test_the_unit_is_always_there_and_ticks_are_even(width: int, last: float) -> None:
    (part,) = _step_labels(Scale(0.0, last), 7, width, "steps")
    assert len(part.text) == width and part.text.endswith(" steps")
    labels = [match.span() for match in re.finditer(r"\S+", part.text[:-6])]
    apart = np.diff([(first + last) / 2 for first, last in labels[1:]])  # the first may be cut
    assert labels and (not len(apart) or apart.max() - apart.min() <= 2)


@pytest.mark.parametrize(("low", "high"), [(8.0, 3216.0), (-3.8, 0.0), (0.0, 6000.0)])
def test_a_narrow_axis_has_two_labels(low: float, high: float) -> None:
    """One alone says nothing about how long the axis is."""
    (part,) = _step_labels(Scale(low, high), 7, 38, "steps")
    assert len(part.text.split()) >= 3, part.text


def test_curves_are_told_apart_without_colours() -> None:
    names = {"return/S": "○", "return/p5": "▽", "return/p95": "△"}
    shown = gauges_view()
    for place, name in enumerate(names):
        series = shown.metrics.setdefault(name, pictures.Series())
        for step in range(100):
            series.append(step, place + step / 100, step, step)
        shown.latest[name] = place + 0.99
    picture = pictures.scale(shown, Options())
    assert {curve.mark for curve in picture.curves} == set(names.values())
    chart = Chart()
    chart.picture = picture
    rows = [words(row) for row in chart.paint(38, 12)]
    for mark in names.values():
        assert sum(mark in row for row in rows[2:]) >= 1, "on its curve"
        assert mark in rows[1], "and in the legend"
        assert ascii_only(mark) not in "?" and ascii_only(mark).isascii()
    assert len({ascii_only(mark) for mark in names.values()}) == 3


def test_marks_of_curves_that_lie_on_each_other_stand_beside_each_other() -> None:
    canvas = np.ones((8, 80), bool)
    places = [mark_places(canvas, turn) for turn in range(3)]
    assert len({cell for cells in places for cell in cells}) == sum(map(len, places)) >= 3


# --- stages, alarms, keys ---------------------------------------------------------------------


def test_a_stage_has_one_name_everywhere() -> None:
    names = ("env_wait", "policy", "insert", "sample", "transfer", "update", "write_latents")
    view = gauges_view(**{f"stage__{name}": 0.1 for name in names})
    meters = {meter.label for meter in stages.pipeline(view)}
    assert {strip.label for strip in stages.strips(view)} == meters
    assert meters == {label(f"stage/{name}") for name in names}


def test_stages_at_zero_share_lines() -> None:
    quiet = dict.fromkeys(("stage__policy", "stage__insert", "stage__sample"), 0.004)
    meters = stages.pipeline(gauges_view(stage__update=0.9, **quiet))
    said = [(meter.label, meter.value) for meter in meters[1:]]
    assert said == [("at 0%", "policy, replay sample"), ("", "replay insert")]
    view = gauges_view(stage__update=0.9, stage__policy=0.004, stage__insert=0.0)
    meters = stages.pipeline(view)
    assert [meter.label for meter in meters] == ["update", "at 0%"]
    assert meters[-1].value == "policy, replay insert"
    assert "at 0%" not in [meter.label for meter in stages.pipeline(RunView())], "not known yet"
    strips = Strips()
    strips.show(stages.strips(view), stages.verdict(view, Phase("training")))
    rows = ["".join(part.text for part in row) for row in strips.paint(100, 20)]
    assert sum("policy" in row for row in rows) == 1
    assert [row for row in rows if row.startswith("at 0%") and "policy, replay insert" in row]


def test_strips_are_drawn_in_any_width() -> None:
    """In a terminal of 28 columns there is less than no room for words beside a bar."""
    some = [Strip("policy", 0.1, (Wait(0.5, "the learner"),)), Strip("update", 0.9)]
    strips = Strips()
    strips.show(some, stages.Verdict("", ""))
    assert all(strips.paint(width, 20) for width in range(1, 100))


def test_waiting_for_the_train_ratio_is_no_trouble() -> None:
    view = gauges_view(stage__update=0.9, stage__ratio_wait=0.8, stage__learner_wait=0.1)
    looks = {meter.label: meter.look for meter in stages.pipeline(view)}
    assert looks == {"update": "bar", "ratio wait": "bar-held", "learner wait": "bar-wait"}
    held = Strip("policy", 0.1, (Wait(0.5, "the train ratio", wanted=True), Wait(0.2, "others")))
    drawn = {part.look: len(part.text) for part in stacked(held, 10)}
    assert drawn == {"bar": 1, "bar-wait": 2, "bar-held": 5, "bar-rest": 2}


def test_the_command_of_an_alarm_is_whole_where_there_is_little_room() -> None:
    name = "20261122-222755-atari100k-breakout-200m"
    view = rebuild([Record(STARTED, 0.0, 0.0, 0)])
    shown = AlertLine()
    line = alarms.line(view, Phase("lost", 1.0), 9.0, name)
    shown.show(line, [Part("saved 21s ago (1.49 MB)", "dim")])
    for width in (78, 118, 198):
        (row,) = shown.paint(width, 1)
        words = "".join(part.text for part in row)
        assert cells(row) == width and f"dreamer-async resume {name}" in words
        assert ("saved" in words) == (width > 78)


@pytest.mark.parametrize(("width", "named"), [(80, False), (120, True)])
def test_the_keys_that_matter_are_always_there(width: int, named: bool) -> None:
    bar = KeyBar()
    bar._pages, bar._current, bar._keys = TABS, "world", KEYS
    (row,) = bar.paint(width, 1)
    words = "".join(part.text for part in row)
    assert cells(row) <= width
    for key in ("? help", "q detach", "p pause", "c save", "Q stop", "4 world"):
        assert key in words
    assert ("2 losses" in words) == named
