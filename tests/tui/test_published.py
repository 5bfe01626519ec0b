"""The published curves behind the returns, and when a word may be said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dreamer_async.scores import curves
from dreamer_async.store.events import Episode, Record, RunStarted
from dreamer_async.tui.draw.rows import cells
from dreamer_async.tui.read.state import rebuild
from dreamer_async.tui.read.view import RunView
from dreamer_async.tui.show.pictures import Options, returns
from dreamer_async.tui.widgets.chart import legend_row
from dreamer_async.tui.widgets.panel import LOOKS

STARTED = RunStarted(
    run="r", suite="atari", task="pong", size="size200m", parameters=1, device="cuda",
    precision="bfloat16", num_envs=16, steps=51_000_000, frames_per_step=4, train_ratio=32.0,
    seed=0, sync=False, compiled=True, replay_capacity=1, replay_bytes=1, pid=1, version="0",
)  # fmt: skip


def view(score: float, steps: int, started: RunStarted = STARTED) -> RunView:
    episodes = [Episode(steps * (i + 1) // 30, 0, score, 100) for i in range(30)]
    return rebuild([Record(event, 0.0, 0.0, 0) for event in (started, *episodes)])


def legend(shown: RunView, width: int = 200) -> str:
    row = legend_row(returns(shown, Options()).legend, width)
    assert cells(row) <= width
    return "".join(part.text for part in row)


def test_the_curve_is_drawn_over_agent_steps_behind_the_dots() -> None:
    picture = returns(view(10.0, 10_000_000), Options())
    assert [curve.look for curve in picture.curves] == ["reference", "dots", "line"]
    assert [curve.look for curve in picture.grounds] == ["ground-published", "ground"]
    for curve in (picture.curves[0], picture.grounds[0]):
        assert curve.trace.x[-1] == 10_000_000
        assert curve.trace.x[0] == 1_000_000, "4 frames are one step"
    assert {curve.look for curve in (*picture.curves, *picture.grounds)} <= set(LOOKS)


@pytest.mark.parametrize(("score", "word"), [(20.0, "on track"), (-21.0, "behind"), (1e3, "ahead")])
def test_the_word(score: float, word: str) -> None:
    said = legend(view(score, 40_000_000))
    assert f"┄ published 20.6 {word} (16.9 to 20.7, size200m)" in said
    at_80x24 = legend(view(score, 40_000_000), 43)
    assert f"┄ size200m 20.6 {word}" in at_80x24


@pytest.mark.parametrize("change", [{"size": "size12m"}, {"train_ratio": 64.0}])
def test_no_word_for_another_size_or_protocol(change: dict[str, object]) -> None:
    said = legend(view(21.0, 40_000_000, replace(STARTED, **change)))
    assert "published" in said
    assert not any(word in said for word in ("ahead", "on track", "behind"))


def test_a_young_run_is_told_where_the_curve_leads() -> None:
    shown = view(-20.0, 10_000)
    assert " at 50" in legend(shown)
    picture = returns(shown, Options())
    assert [curve.look for curve in picture.curves] == ["dots", "line"]
    assert [curve.look for curve in picture.grounds] == ["ground"]


def test_the_band_is_the_range_of_the_seeds_around_their_median() -> None:
    picture = returns(view(10.0, 10_000_000), Options())
    band, pong = picture.grounds[0].trace, curves.find("atari", "pong")
    assert pong is not None and band.low is not None and band.high is not None
    assert (band.low[0], band.high[0]) == (pong.low[0], pong.high[0])
    assert picture.curves[0].trace.y[0] == pong.median[0] != pong.mean[0]
    assert (band.low <= picture.curves[0].trace.y).all()


@pytest.mark.parametrize(("repeat", "word"), [(2, "ahead"), (1, "")])
def test_dmc_has_a_word_with_the_published_repeat_only(repeat: int, word: str) -> None:
    made = {"suite": "dmc-proprio", "task": "walker_walk", "size": "size12m", "train_ratio": 512.0}
    said = legend(view(1e4, 100_000, replace(STARTED, **made, frames_per_step=repeat)))
    assert ("ahead" in said) == bool(word) and "published" in said


def test_a_task_without_a_curve_has_no_reference() -> None:
    shown = view(5.0, 10_000, replace(STARTED, suite="minigrid", task="empty"))
    assert "published" not in legend(shown) and legend(shown).endswith("no reference")


def test_the_curves_of_dmc_say_their_size_and_action_repeat() -> None:
    for suite in ("dmc-vision", "dmc-proprio"):
        shown = view(300.0, 100_000, replace(STARTED, suite=suite, task="walker_walk"))
        assert "size12m, action repeat 2)" in legend(shown)
        assert "size12m, action repeat 2 " in legend(shown, 43), "at 80x24 too"
