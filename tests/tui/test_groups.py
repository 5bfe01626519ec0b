"""Runs over each other: which are seeds of one another, their mean and its interval, the legend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.scores.bands import band
from dreamer_async.store.events import Episode, encode_line
from dreamer_async.store.run_dir import RunDir
from dreamer_async.tui.app import Dashboard
from dreamer_async.tui.main_screen import NAMES
from dreamer_async.tui.read.compare import groups
from dreamer_async.tui.read.source import Source
from dreamer_async.tui.show.groups import LOOKS, grouped, legend, refusal
from dreamer_async.tui.show.options import Options
from dreamer_async.tui.show.seeds import mean_return, newest, returns
from tests.tui.test_app import NOW, driven, settle, text


def test_runs_that_differ_in_nothing_but_the_seed_are_one_group() -> None:
    one, two = ({"train.seed": str(seed), "optim.lr": "1"} for seed in (1, 2))
    other = {**one, "optim.lr": "2"}
    assert groups([one, other, two]) == [0, 1, 0]
    assert groups([one, one]) == [0, 1], "the same seed twice is no second sample"
    assert groups([one, {}, {}]) == [0, 1, 2], "nothing is known of them"
    assert groups([one, {**two, "more": "x"}]) == [0, 1]


def test_the_band_is_the_bootstrap_interval_of_the_mean() -> None:
    curves = np.random.default_rng(0).normal(size=(9, 40)) + np.linspace(0, 5, 40)
    found = band(curves)
    assert np.allclose(found.mean, curves.mean(axis=0))
    assert (found.low < found.mean).all() and (found.mean < found.high).all()
    half = (found.high - found.low) / 2
    wanted = 1.96 * curves.std(axis=0) / 3  # of a normal distribution
    assert np.abs(half / wanted - 1).max() < 0.15
    same = band(np.ones((5, 3)))
    assert (same.low == 1).all() and (same.high == 1).all()
    alone = band(curves[:1])
    assert (alone.low == curves[0]).all() and (alone.high == curves[0]).all()


def made(root: Path, name: str, seed: int, lr: float, scores: Sequence[float]) -> RunDir:
    run = RunDir(root / name)
    run.control.mkdir(parents=True)
    events = (Episode(10 * n + 10, 0, score, 5) for n, score in enumerate(scores))
    run.events_path.write_bytes(b"".join(encode_line(e, NOW, 0.0, 0) for e in events))
    run.config_path.write_text(json.dumps({"optim": {"lr": lr}, "train": {"seed": seed}}))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    """Two seeds of one kind, of which the second has come half as far, and another kind."""
    return [
        made(tmp_path, "20261122-222755-catch-lr1-s1", 1, 1.0, [1.0] * 40),
        made(tmp_path, "20261122-222756-catch-lr1-s2", 2, 1.0, [3.0] * 20),
        made(tmp_path, "20261122-222757-catch-lr2-s1", 1, 2.0, [9.0] * 40),
    ]


def sources(runs: Sequence[RunDir]) -> list[Source]:
    found = [Source(run.path) for run in runs]
    for source in found:
        source.read_newest()
    return found


def test_a_mean_is_drawn_as_far_as_every_seed_has_come(runs: list[RunDir]) -> None:
    pair, alone = grouped(sources(runs))
    assert (pair.title, alone.title) == ("catch-lr1 (2 seeds)", "catch-lr2-s1")
    found = mean_return(pair, Options())
    assert found is not None
    x, mean = found
    assert (x[0], x[-1]) == (10, 200) and np.allclose(mean.mean, 2.0)
    assert (mean.low >= 1).all() and (mean.low < 2).all() and (mean.high > 2).all()
    assert newest(pair) == "2.00 [1.00, 3.00]" and newest(alone) == "9.00"
    picture = returns([pair, alone], Options())
    assert [curve.look for curve in picture.curves] == ["line-2", "line"]
    assert [ground.look for ground in picture.grounds] == ["ground"], "one run has no band"
    assert "95 % bootstrap interval" in picture.note
    assert "bootstrap" not in returns([alone], Options()).note
    assert [pair.look_of(source) for source in pair.sources] == ["line", "dots"]


def test_a_group_that_has_nothing_in_common_yet_is_not_drawn(tmp_path: Path) -> None:
    early = made(tmp_path, "20261122-222755-catch-s1", 1, 1.0, [1.0] * 40)
    late = made(tmp_path, "20261122-222756-catch-s2", 2, 1.0, [])
    (group,) = grouped(sources([early, late]))
    assert mean_return(group, Options()) is None and returns([group], Options()).curves == []


def test_no_more_kinds_than_colours(tmp_path: Path) -> None:
    kinds = [
        made(tmp_path, f"20261122-2227{n:02}-x", 1, float(n), []) for n in range(len(LOOKS) + 1)
    ]
    seeds = [made(tmp_path, f"20261122-2228{n:02}-x", n, 0.0, []) for n in range(2, 12)]
    assert "at most 4 kinds" in refusal(sources(kinds))
    assert refusal(sources(kinds[:-1])) == "" == refusal(sources([kinds[0], *seeds]))
    assert "at most 16 runs" in refusal(sources([kinds[0], *seeds]) * 2)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_legend_names_every_kind_in_any_width(runs: list[RunDir], width: int) -> None:
    row = legend(grouped(sources(runs)), width)
    assert sum(len(part.text) for part in row) <= width
    keys = [(part.text, part.look) for part in row if part.text in ("━ ", "△ ")]
    assert keys == [("━ ", "line"), ("△ ", "line-2")], "told apart without colours, too"
    assert all(part.text.strip() for part in row[1::3])


@driven
async def test_every_page_says_which_colour_is_which_run(runs: list[RunDir]) -> None:
    app = Dashboard(runs[0].path, [run.path for run in runs[1:]], clock=lambda: NOW, animate=False)
    async with app.run_test(size=(80, 24)) as pilot:
        while not all(source.caught_up for source in app.sources):
            app.read_piece()
        for number, name in enumerate(NAMES, start=1):
            await pilot.press(str(number))
            await settle(pilot)
            rows = text(pilot).split("\n")
            assert "━ catch-lr1 (2 seeds)  △ catch-lr2-s1" in rows[3], name
        assert "2.00 [1.00, 3.00]" in text(pilot)
        assert "optim.lr" in text(pilot) and "train.seed" not in text(pilot)
        for run in runs[1:]:
            app.overlay(run.path)
        await settle(pilot)
        assert "catch-lr2-s1" not in text(pilot), "alone again"
        assert "r, then space" in text(pilot)
