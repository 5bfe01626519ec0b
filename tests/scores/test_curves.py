"""The published curves: what is shipped, and where they stop."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_async.config import PUBLISHED, resolve
from dreamer_async.envs import tasks
from dreamer_async.scores import curves


@pytest.mark.parametrize("suite", ["atari", "atari100k"])
def test_every_task_of_the_benchmarks_has_a_curve(suite: str) -> None:
    found = [task for task in tasks(suite) if curves.find(suite, task) is not None]
    assert len(found) == {"atari": 57, "atari100k": 26}[suite]


def test_a_curve_is_the_published_one() -> None:
    pong = curves.find("atari100k", "pong")
    assert pong is not None and len(pong.frames) == len(pong.mean) == len(pong.high)
    assert pong.frames[-1] == 400_000 and pong.seeds == 5
    assert -6 < pong.mean[-1] < 0, "the paper's Pong ends near -4 at 100k steps"
    assert (np.diff(pong.frames) > 0).all()
    assert curves.find("atari", "James_Bond") is not None
    assert curves.find("toy", "seek") is None


def test_the_curve_ends_where_the_run_is() -> None:
    pong = curves.find("atari100k", "pong")
    assert pong is not None
    middle = float(pong.frames[3] + pong.frames[4]) / 2
    part = pong.until(middle)
    assert part.frames[-1] == middle and len(part.frames) == 5
    assert part.mean[-1] == pytest.approx((pong.mean[3] + pong.mean[4]) / 2)
    assert len(pong.until(1.0).frames) == 0, "before the first bin there is nothing"
    assert len(pong.until(1e12).frames) == len(pong.frames)


@pytest.mark.parametrize("suite", curves.BUDGETS)
def test_median_and_mean_lie_inside_the_range_of_the_seeds(suite: str) -> None:
    wide = 0
    for known in filter(None, (curves.find(suite, task) for task in tasks(suite))):
        slack = 1e-3 * np.maximum(abs(known.low), abs(known.high))  # four digits are kept
        for inner in (known.median, known.mean):
            assert (known.low - slack <= inner).all() and (inner <= known.high + slack).all()
        wide += (known.low < known.high).any()
        assert known.seeds > 1 or (known.low == known.high).all()
    assert wide or suite == "procgen", "of Procgen a single run was published"


@pytest.mark.parametrize("suite", PUBLISHED)
def test_a_run_set_up_as_published_is_comparable_and_others_are_not(suite: str) -> None:
    made = resolve(suite, tasks(suite)[0], published=True)
    repeat = {"dmc-proprio": 2, "dmc-vision": 2}.get(suite, 4)
    right = (made.size, made.train.train_ratio, repeat)
    assert curves.comparable(suite, *right) and made.size == curves.size_of(suite)
    assert not curves.comparable(suite, "size1m", *right[1:])
    assert not curves.comparable(suite, made.size, 64.0, repeat)
    assert curves.comparable(suite, *right[:2], 1) == (repeat == 4), "its own repeat is fixed"
    steps = made.train.steps * repeat
    assert steps >= curves.BUDGETS[suite], "the whole curve can be seen"


def test_no_word_is_said_where_our_protocol_is_another() -> None:
    assert not curves.comparable("procgen", "size200m", 64.0, 1)
    assert not curves.comparable("toy", "size200m", 32.0, 1)


@pytest.mark.parametrize("suite", curves.BUDGETS)
def test_points_are_the_right_edges_of_equal_bins_of_the_budget(suite: str) -> None:
    width = curves.BUDGETS[suite] / curves.BINS
    known = [found for task in tasks(suite) if (found := curves.find(suite, task)) is not None]
    edges = np.unique(np.concatenate([found.frames for found in known])) / width
    assert (edges == np.round(edges)).all() and set(edges) <= set(range(1, curves.BINS + 1))
    assert len(edges) >= curves.BINS - 1


@pytest.mark.parametrize("suite", curves.BUDGETS)
def test_the_lines_of_a_suite_stand_together(suite: str) -> None:
    """`find` takes what lies between the first and the last of them."""
    text = curves.FILE.read_text(encoding="utf-8")
    lines = [line.split(",")[1:] for line in text.split("\n") if line.startswith(f"{suite},")]
    assert curves._lines(suite) == lines != []


def test_bins_are_found_by_their_right_edge() -> None:
    walker = curves.find("dmc-proprio", "walker_walk")
    assert walker is not None
    assert walker.inside(20_000) == curves.Band(83.05, 54.22, 125.4)
    assert walker.inside(500_000) is None
    assert walker.mean_after(450_000) == pytest.approx(np.mean([942.7, 956.5, 969.8, 881.0]))
    assert walker.mean_after(500_000) is None
