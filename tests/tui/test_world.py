"""The world page: how good a dream is said to be, what numbers are called, what is waited for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.store.events import Event, PhaseChanged, Record, RunFinished
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.read import film
from dreamer_async.tui.read.film import Shot
from dreamer_async.tui.read.progress import Phase
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.show import dreaming
from dreamer_async.tui.show.dreaming import Horizon, horizon, spread
from dreamer_async.tui.show.film_notes import FIRST_SECONDS, waiting
from dreamer_async.tui.show.traces import traces
from tests.tui.test_app import NOW, append, dashboard, driven, screen, settle, text, trainer


def wave(steps: int, rows: int = 1) -> np.ndarray:
    """Two numbers that swing, [R, T, 2]; the standard deviation of the second is ten times as
    large."""
    angle = np.linspace(0, 4 * np.pi, steps, endpoint=False)
    return np.stack([np.sin(angle), 10 * np.cos(angle)], 1)[None].repeat(rows, 0)


@pytest.mark.parametrize("step", [0, 5, 39])
def test_a_dream_is_good_until_it_is_off_by_half_its_spread(step: int) -> None:
    (real,), spreads = wave(40), spread(wave(40))
    assert spreads.tolist() == pytest.approx([0.5**0.5, 10 * 0.5**0.5])
    for share, good in ((0.49, 40), (0.51, step)):
        dreamed = real.copy()
        dreamed[step:] += share * spreads
        assert horizon(real, dreamed, spreads) == Horizon(good, 40)
    dreamed = real.copy()
    dreamed[step] += 0.51 * spreads
    assert horizon(real, dreamed, spreads).good == step, "what comes after is luck"


def test_each_number_counts_by_its_own_spread() -> None:
    (real,), spreads = wave(40), spread(wave(40))
    dreamed = real + np.array([0.0, 1.0])
    assert horizon(real, dreamed, spreads).good == 40
    assert horizon(real, dreamed[:, ::-1], spreads).good < 40
    assert horizon(real, real + np.array([1.0, 0.0]), spreads).good == 0


def test_what_stands_still_or_is_no_number_is_no_good_dream() -> None:
    (real,), spreads = wave(40), spread(wave(40))
    still = np.zeros((40, 2)) + 7
    assert spread(still[None]).tolist() == [0, 0]
    assert horizon(still, still, spread(still[None])) == Horizon(0, 0), "nothing to judge"
    half = np.stack([real[:, 0], still[:, 0]], 1)
    assert horizon(half, half + np.array([0, 99.0]), spread(half[None])) == Horizon(40, 40)
    broken = real.copy()
    broken[7] = np.nan
    assert horizon(real, broken, spreads) == Horizon(7, 40)


def test_categories_are_good_while_nine_in_ten_are_right() -> None:
    real = np.zeros((8, 10))
    dreamed = real.copy()
    dreamed[3, 0] = 1
    dreamed[5, :2] = 2
    ones = np.ones(10)
    assert horizon(real, dreamed, ones, categories=True) == Horizon(5, 8)
    assert horizon(real[:, :1], dreamed[:, :1], ones[:1], categories=True) == Horizon(3, 8)
    assert dreaming.error(real, dreamed, categories=True) == pytest.approx(3 / 80)
    assert dreaming.error(real, dreamed) == pytest.approx((9 / 80) ** 0.5)
    assert np.isnan(dreaming.error(real[:0], dreamed[:0]))


def test_only_the_episode_that_was_seen_is_judged() -> None:
    first = np.zeros(12, bool)
    assert dreaming.dreamed_steps(first, 4) == slice(4, 12)
    first[[0, 9]] = True
    assert dreaming.dreamed_steps(first, 4) == slice(4, 9)
    first[4] = True
    assert dreaming.dreamed_steps(first, 4) == slice(4, 4)


def numbers(path: Path, count: int = 2, **meta: object) -> film.Film:
    """A film of two sequences of a vector, whose dream is lost from step 10 of 16 on."""
    real = wave(16, 2)[..., [place % 2 for place in range(count)]]
    dreamed = real.copy()
    dreamed[:, 10:] += 30
    said = {"update": 7, "env_steps": 9, "context": 4, "time": NOW - 30, "pause": 120.0, **meta}
    content = {
        "meta": np.array(json.dumps(said)),
        "is_first": np.zeros((2, 16), bool),
        "vector/arm": np.stack([real, real, dreamed]).astype(np.float32),
    }
    np.savez(path, allow_pickle=False, **content)
    return film.load(path)


def test_numbers_are_called_as_the_film_says(tmp_path: Path) -> None:
    path, shot = tmp_path / "film.npz", Shot("arm", 0, False)
    hostile = ["robot/\x1b[2Jarm", 7, "x" * 99, "more than there are"]
    for names, titles in (
        (None, ["arm[0]", "arm[1]"]),
        ({"arm": ["robot/arm"]}, ["robot/arm", "arm[1]"]),
        ({"arm": hostile}, ["robot/[2Jarm", "7"]),
        ({"arm": "none"}, ["arm[0]", "arm[1]"]),
        ("none", ["arm[0]", "arm[1]"]),
    ):
        charts = traces(numbers(path, names=names), shot, range(2), 60)
        assert [chart.title for chart in charts] == titles


def test_categories_are_drawn_as_steps(tmp_path: Path) -> None:
    path, shot = tmp_path / "film.npz", Shot("arm", 0, False)
    for classes, points in ((None, 16), ({"arm": 3}, 32), ({"arm": -3}, 16), ([], 16)):
        chart = traces(numbers(path, classes=classes), shot, range(1), 60)[0]
        assert len(chart.curves[1].trace.x) == points, classes
        assert ("wrong" in chart.value[0].text) == (points == 32)
    x = traces(numbers(path, classes={"arm": 3}), shot, range(1), 60)[0].curves[1].trace.x
    assert x[:4].tolist() == [0.5, 1.5, 1.5, 2.5], "each step has its whole width"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20261122-222755-toy-catch")
    run.control.mkdir(parents=True)
    run.pictures.mkdir()
    return run


@driven
async def test_error_and_horizon_stand_beside_the_curves(run: RunDir) -> None:
    numbers(run.film_path, names={"arm": ["robot/arm[0]", "robot/arm[1]"]})
    append(run, PhaseChanged("training", 9, 7))
    with trainer(run):
        async with dashboard(run).run_test(size=(120, 40)) as pilot:
            await pilot.press("4")
            await settle(pilot)
            shown = text(pilot)
            assert "robot/arm[0]" in shown and "dream good to step 10" in shown
            assert "30s ago, next in 1m30s (d: now)" in shown
            assert shown.count("±") == 4, "dream and reconstruction of both"


@driven
async def test_long_vectors_are_paged(run: RunDir) -> None:
    numbers(run.film_path, count=32)
    append(run, PhaseChanged("training", 9, 7))
    async with dashboard(run).run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await settle(pilot)
        assert "1-9 of 32" in text(pilot) and "arm[8]" in text(pilot)
        for key, part in (("pagedown", "10-18"), ("pagedown", "19-27"), ("pagedown", "24-32")):
            await pilot.press(key)
            assert f"{part} of 32" in text(pilot)
        assert "arm[31]" in text(pilot)
        await pilot.press("v")
        assert "arm 2 of 2" in text(pilot) and "1-9 of 32" in text(pilot)


@pytest.mark.parametrize(
    ("event", "phase", "words"),
    [
        (None, "waiting", ("first update", "Now: waiting")),
        (PhaseChanged("prefill", 384, 0), "prefill", ("first update", "prefill, step 384")),
        (PhaseChanged("training", 384, 0), "training", ("first update", "training, step 384")),
        (PhaseChanged("training", 999, 5), "training", ("d asks for one now",)),
        (PhaseChanged("paused", 999, 5), "paused", ("when it continues (p)",)),
        (PhaseChanged("training", 999, 5), "lost", ("is not being trained",)),
        (RunFinished("completed", 9, 9, 0), "finished", ("is not being trained",)),
    ],
)
def test_without_a_film_it_is_said_what_is_waited_for(
    event: Event | None, phase: str, words: tuple[str, ...]
) -> None:
    view = rebuild([Record(event, 0.0, 0.0, 0)] if event else [])
    for trouble in ("", "not a film: nothing to see"):
        said = " ".join(waiting(view, Phase(phase), trouble))
        assert all(word in said for word in words), said
        assert ("d asks" in said) == ("d asks for one now" in words), "only where it can be"
        assert trouble in said


def test_the_page_knows_how_often_the_trainer_tries() -> None:
    from dreamer_async.run.films.film import PERIOD_SECONDS

    assert PERIOD_SECONDS / 8 == FIRST_SECONDS


@driven
async def test_the_page_is_never_blank(run: RunDir) -> None:
    """Not without a film, and not with one of numbers where there is little room."""
    append(run, PhaseChanged("training", 9, 7))
    async with dashboard(run).run_test(size=(30, 12)) as pilot:
        await pilot.press("4")
        await settle(pilot)
        assert "No film yet" in text(pilot)
        numbers(run.film_path)
        await settle(pilot)
        assert "No film" not in text(pilot)
        assert any("arm[0]" in row for row in screen(pilot)[4:-2])
