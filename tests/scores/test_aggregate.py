"""Interquartile mean, median, mean, their intervals and profiles, against numbers by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.cli import main
from dreamer_async.config import resolve, to_dict
from dreamer_async.scores import aggregate as ag
from dreamer_async.scores.protocol import score_tasks
from dreamer_async.store.events import Episode, EventWriter, Gauges
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from tests.scores.test_scores import STARTED, run

SCORES = np.array([[0.0, 0.1, 2.0, 0.5], [0.2, 0.3, 4.0, 0.7]])
"""Two runs of four tasks."""


def test_numbers_of_an_example_by_hand() -> None:
    """Sorted: 0 .1 .2 .3 .5 .7 2 4; of eight scores two are cut off at each end."""
    assert ag.iqm(SCORES) == pytest.approx((0.2 + 0.3 + 0.5 + 0.7) / 4)
    assert ag.median(SCORES) == pytest.approx((0.2 + 0.6) / 2), "of 0.1, 0.2, 3 and 0.6"
    assert ag.mean(SCORES) == pytest.approx((0.1 + 0.2 + 3.0 + 0.6) / 4)


def test_a_quarter_is_rounded_down() -> None:
    """As scipy's trim_mean, which rliable takes: one of six is cut off at each end."""
    scores = np.array([[9.0, 1.0, 2.0], [3.0, 4.0, -5.0]])
    assert ag.iqm(scores) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert ag.iqm(scores[:1]) == pytest.approx(4.0), "of three nothing"


def test_profiles_are_shares_above() -> None:
    shares = ag.profile(SCORES, np.array([-1.0, 0.0, 0.3, 4.0]))
    np.testing.assert_allclose(shares.share, [1.0, 7 / 8, 4 / 8, 0.0])
    assert (shares.low <= shares.share).all() and (shares.share <= shares.high).all()
    alone = ag.profile(SCORES[:1], np.array([0.3]))
    assert alone.low == alone.high == alone.share == [0.5]


def test_runs_are_drawn_inside_their_task() -> None:
    drawn = ag.resampled(SCORES, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 2, 4)
    for task in range(4):
        assert set(np.unique(drawn[..., task])) == set(SCORES[:, task])
    both = {tuple(each) for each in drawn[:, 0, :2].tolist()}
    assert len(both) == 4, "each task is drawn by itself"


def test_intervals_are_percentiles_of_what_can_be_drawn() -> None:
    """Two runs of one task, 0 and 1: means of 0, 1/2 and 1 come 1 : 2 : 1."""
    found = ag.estimate(ag.mean, np.array([[0.0], [1.0]]))
    assert found == ag.Estimate(0.5, 0.0, 1.0)
    assert ag.estimate(ag.mean, np.array([[0.3, 0.5]])) == ag.Estimate(0.4, None, None)
    many = np.random.default_rng(1).normal(size=(50, 1))
    found = ag.estimate(ag.mean, many)
    assert found.low is not None and found.high is not None
    error = many.std() / np.sqrt(50)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_tasks_with_more_runs_do_not_count_for_more() -> None:
    ends = [(399e3, 21.0)], [(399e3, -20.7)], [(399e3, 0.0)]
    played = [run(end, task="pong") for end in ends] + [run(ends[0], task="boxing")]
    scores, left_out = ag.table(score_tasks(played))
    assert scores.shape == (1, 2) and left_out == 2
    (found,) = ag.aggregate(score_tasks(played))
    assert (found.tasks, found.runs, found.left_out) == (2, 1, 2)
    assert ag.aggregate(score_tasks([run([(1000, 5.0)])])) == [], "nothing is complete"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """Two tasks, two learning rates, three seeds; one more run has not begun."""
    monkeypatch.chdir(tmp_path)
    made = SweepDir(Path("runs/sweep-atari100k"))
    jobs = []
    for seed in range(3):
        for task in ("pong", "boxing"):
            for lr in ("4e-5", "1e-4"):
                jobs.append(Job(f"{task}-{lr}-{seed}", task, "size1m", seed, {"optim.lr": lr}))
    made.write(Sweep(VERSION, "atari100k", (), (*jobs, Job("late", "pong", "size1m", 9))))
    for job in jobs:
        overrides = [f"train.seed={job.seed}", f"optim.lr={job.settings['optim.lr']}"]
        config = resolve("atari100k", job.task, size="size1m", overrides=overrides)
        new = RunDir.create(made.path, job.name, config=to_dict(config), now=None)
        score = job.seed + 10.0 * (job.settings["optim.lr"] == "1e-4")
        with EventWriter(new.events_path, 0) as writer:
            writer.emit(STARTED)
            writer.emit(Episode(99_999, 0, score, 10))
            writer.emit(Gauges(100_000, 1, {}))
    return made


def test_settings_of_a_sweep_are_told_apart(
    sweep: SweepDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scores", sweep.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["settings"], row["task"], row["score"]) for row in told["tasks"]] == [
        ("optim.lr=4e-5", "pong", 1.0),
        ("optim.lr=4e-5", "boxing", 1.0),
        ("optim.lr=1e-4", "pong", 11.0),
        ("optim.lr=1e-4", "boxing", 11.0),
    ]
    assert [(row["tasks"], row["runs"]) for row in told["aggregates"]] == [(2, 3), (2, 3)]
    assert main(["scores", sweep.name]) == 0
    text = capsys.readouterr().out
    assert "== optim.lr=1e-4" in text and "iqm" in text and "published over the same" in text


def test_a_picture_is_drawn(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["scores", sweep.name, "--plot", "out.png"]) == 0
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert main(["scores", sweep.name, "--plot", "out.gif"]) == 2
    assert main(["scores", sweep.name, "--plot", "nowhere/out.png"]) == 2
    assert "existing directory" in capsys.readouterr().err
