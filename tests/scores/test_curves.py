"""The published curves: what is shipped, and where they stop."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer_async.config import SUITES
from dreamer_async.envs import tasks
from dreamer_async.scores import curves


@pytest.mark.parametrize("suite", ["atari", "atari100k"])
def test_every_task_of_the_benchmarks_has_a_curve(suite: str) -> None:
    found = [task for task in tasks(suite) if curves.find(suite, task) is not None]
    assert len(found) == {"atari": 57, "atari100k": 26}[suite]


def test_a_curve_is_the_published_one() -> None:
    pong = curves.find("atari100k", "pong")
    assert pong is not None and len(pong.frames) == len(pong.mean) == len(pong.std)
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


def test_protocols_are_those_of_our_presets() -> None:
    for suite, ratio in curves.TRAIN_RATIOS.items():
        assert SUITES[suite]["train.train_ratio"] == ratio


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
    assert walker.inside(20_000) == (88.53, 28.27) and walker.inside(500_000) is None
    assert walker.mean_after(450_000) == pytest.approx(np.mean([942.7, 956.5, 969.8, 881.0]))
    assert walker.mean_after(500_000) is None
