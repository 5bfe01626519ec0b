"""Scores by the paper's protocol: what is averaged over what, and what it is laid beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamer_async import envs
from dreamer_async.cli import main
from dreamer_async.cli.scores import task_lines
from dreamer_async.config import ConfigError, resolve, to_dict
from dreamer_async.scores import curves
from dreamer_async.scores.protocol import Played, normalized, read_run, score_suites, score_tasks
from dreamer_async.store.events import Episode, EventWriter, Gauges, Resumed, RunStarted
from dreamer_async.store.run_dir import RunDir

STARTED = RunStarted(
    run="r", suite="atari100k", task="pong", size="size200m", parameters=1, device="cuda",
    precision="bfloat16", num_envs=1, steps=110_000, frames_per_step=4, train_ratio=256.0,
    seed=0, sync=False, compiled=True, replay_capacity=1, replay_bytes=1, pid=1, version="0",
)  # fmt: skip


def run(
    episodes: list[tuple[float, float]],
    reached: float = 440_000,
    suite: str = "atari100k",
    task: str = "pong",
    **options: Any,
) -> Played:
    """A run whose episodes are (frames, return)."""
    given: dict[str, Any] = {"size": "size200m"} | options
    config = resolve(suite, task, **given)
    frames, returns = np.array(episodes, np.float64).reshape(-1, 2).T
    return Played("r", config, 4, reached, frames, returns)


def published_run(suite: str, task: str) -> Played:
    """A run that scored what was published, once in every bin."""
    known = curves.find(suite, task)
    assert known is not None
    points = list(zip(known.frames - 1, known.mean, strict=True))
    return run(points, curves.BUDGETS[suite], suite, task)


def test_a_bin_averages_runs_and_not_episodes() -> None:
    one, other = run([(100, 0.0), (200, 0.0), (8000, 0.0)]), run([(300, 10.0), (8001, -3.0)])
    (task,) = score_tasks([one, other])
    first, second = task.bins
    assert (first.frames, first.runs, first.episodes) == (8000, 2, 4), "right edges belong inside"
    assert (first.mean, first.std) == (5.0, 5.0)
    assert (second.frames, second.runs, second.mean, second.std) == (16_000, 1, -3.0, None)


def test_a_score_is_the_mean_of_the_bins_of_the_last_tenth() -> None:
    late = [(366_000, 1.0), (367_000, 2.0), (368_000, 3.0), (398_000, 10.0), (400_000, 20.0)]
    (task,) = score_tasks([run([(359_999, 1e6), *late, (400_001, 1e6)])])
    assert task.score == pytest.approx((2.0 + 15.0) / 2) and task.score_std is None
    assert task.runs[0].episodes == 6, "what comes after the budget does not count"


def test_only_runs_that_saw_the_whole_budget_have_a_score() -> None:
    young, old = run([(399_000, 5.0)], reached=399_999), run([(399_000, 7.0)], reached=400_000)
    (task,) = score_tasks([young, old])
    assert [row.score for row in task.runs] == [None, 7.0] and task.score == 7.0
    assert task.bins[0].mean == 6.0, "the curve takes all of them"
    (task,) = score_tasks([run([(1000, 5.0)])])
    assert task.score is None, "no episode ended in the last tenth"
    said = "\n".join(task_lines(task, curve=False))
    assert "none, as no episode ended in it" in said and "yet" not in said
    (task,) = score_tasks([run([(1000, 5.0)], reached=399_999)])
    said = "\n".join(task_lines(task, curve=False))
    assert "not yet" in said and "no run has seen the whole budget yet" in said
    (task,) = score_tasks([run([])])
    assert task.score is None and task.bins == []


@pytest.mark.parametrize("suite", curves.BUDGETS)
def test_what_was_published_scores_as_published(suite: str) -> None:
    task = next(name for name in envs.tasks(suite) if curves.find(suite, name))
    (scored,) = score_tasks([published_run(suite, task)])
    assert scored.score == pytest.approx(scored.published)
    assert scored.normalized == pytest.approx(scored.published_normalized)
    assert (scored.normalized is None) == suite.startswith("dmc")
    known = curves.find(suite, task)
    assert known is not None and len(scored.bins) == len(known.frames)
    for part, mean in zip(scored.bins, known.mean, strict=True):
        assert part.mean == pytest.approx(mean) and part.published == known.inside(part.frames)


def test_a_suite_is_summed_up_as_the_archive_says() -> None:
    """1.12 and 0.44 are what it gives for the last tenth of Atari 100k."""
    tasks = [task for task in envs.tasks("atari100k") if curves.find("atari100k", task)]
    (suite,) = score_suites(score_tasks([published_run("atari100k", task) for task in tasks]))
    assert suite.tasks == 26
    assert (suite.mean, suite.median) == (
        pytest.approx(1.12, abs=0.01),
        pytest.approx(0.44, abs=0.01),
    )
    assert (suite.mean, suite.median) == pytest.approx(
        (suite.published_mean, suite.published_median)
    )
    assert score_suites(score_tasks([published_run("atari100k", "pong")])) == []


def test_no_task_of_dmlab_counts_for_more_than_a_human() -> None:
    high = [run([(99e6, 1e9)], 1e8, "dmlab", task) for task in ("rooms_watermaze",)]
    low = [run([(99e6, 0.0)], 1e8, "dmlab", "lasertag_one_opponent_large")]
    tasks = score_tasks(high + low)
    (suite,) = score_suites(tasks)
    expected = normalized("dmlab", "lasertag_one_opponent_large", 0.0)
    assert expected is not None and suite.mean == pytest.approx((1.0 + expected) / 2)


def test_scores_are_placed_between_random_play_and_a_human() -> None:
    assert normalized("atari100k", "alien", 1006.67) == pytest.approx(0.112881, abs=1e-6)
    assert normalized("atari", "James_Bond", 29.0) == pytest.approx(0.0)
    assert normalized("dmc-vision", "walker_walk", 900.0) is None
    assert normalized("atari", "alien", None) is None


@pytest.mark.parametrize(("shift", "word"), [(0.0, "on track"), (50.0, "ahead"), (-50.0, "behind")])
def test_a_word_is_said_of_runs_like_the_published_ones(shift: float, word: str) -> None:
    known = curves.find("atari100k", "pong")
    assert known is not None
    points = [(known.frames[9], known.median[9] + shift)]
    (task,) = score_tasks([run(points, reached=90_000)])
    assert task.verdict == word and task.differences == []


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"size": "size12m"}, "size=size12m (published size200m)"),
        ({"overrides": ["optim.lr=1e-3"]}, "optim.lr=0.001 (published 4e-05)"),
        ({"overrides": ["train.train_ratio=64"]}, "train.train_ratio=64.0 (published 256.0)"),
    ],
)
def test_other_settings_are_named_instead(options: dict[str, Any], difference: str) -> None:
    (task,) = score_tasks([run([(8000, 30.0)]), run([(8000, 30.0)], **options)])
    assert task.differences == [difference] and task.verdict == ""


def test_dmc_has_a_word_when_it_is_set_up_as_published_and_differences_otherwise() -> None:
    known = curves.find("dmc-proprio", "walker_walk")
    assert known is not None
    points = list(zip(known.frames - 1, known.median, strict=True))
    made: dict[str, Any] = {"size": None, "published": True}
    (task,) = score_tasks([run(points, 5e5, "dmc-proprio", "walker_walk", **made)])
    assert task.differences == [] and task.verdict == "on track"
    bad = [(frames, score - 500) for frames, score in points]
    (task,) = score_tasks([run(bad, 5e5, "dmc-proprio", "walker_walk", **made)])
    assert task.verdict == "behind"
    (task,) = score_tasks([run(points, 5e5, "dmc-proprio", "walker_walk", size="size1m")])
    assert task.verdict == "" and task.differences == [
        "size=size1m (published size12m)",
        "env.num_envs=16 (published 8)",
        "env.repeat=1 (published 2)",
        "train.train_ratio=1024.0 (published 512.0)",
    ]


def test_settings_outside_the_protocol_do_not_matter() -> None:
    plain = ["train.seed=3", "train.compile=false", "train.threads=1", "train.steps=200000"]
    (task,) = score_tasks([run([(8000, 30.0)], overrides=plain)])
    assert task.differences == [] and task.verdict == "ahead"


def test_a_task_without_a_curve_has_bins_of_its_planned_steps() -> None:
    steps = ["train.steps=1000"]
    (task,) = score_tasks([run([(80, 1.0), (3900, 3.0)], 4000, "toy", "seek", overrides=steps)])
    assert task.budget == 4000 and [part.frames for part in task.bins] == [80, 3920]
    assert task.score == 3.0 and task.published is None and task.differences == []


# -- from files ----------------------------------------------------------------------------------


def recorded(root: Path, *events: Any, task: str = "pong") -> str:
    config = to_dict(resolve("atari100k", task, size="size200m"))
    made = RunDir.create(root, f"atari100k-{task}", config=config)
    with EventWriter(made.events_path, 0) as writer:
        for event in events:
            writer.emit(event)
    return made.name


def gauges(env_steps: int) -> Gauges:
    return Gauges(env_steps=env_steps, updates=0, values={})


def test_frames_are_agent_steps_times_the_action_repeat(tmp_path: Path) -> None:
    name = recorded(
        tmp_path,
        STARTED,
        Episode(1000, 0, -20.0, 900),
        Episode(1500, 0, None, 500),
        Episode(2500, 0, -21.0, 900),
        gauges(2600),
    )
    made = RunDir.find(tmp_path, name)
    played = read_run(made, resolve("atari100k", "pong"))
    assert played.frames.tolist() == [4000, 10_000] and played.returns.tolist() == [-20, -21]
    assert played.reached == 10_400


def test_what_a_resume_has_lost_does_not_count(tmp_path: Path) -> None:
    lost = [Episode(1200, 0, -1.0, 200), Episode(1500, 0, -2.0, 300), gauges(1600)]
    resumed = Resumed("checkpoints/step-1000", 1000, 0, 0.0)
    made = [STARTED, Episode(1000, 0, 5.0, 900), *lost, STARTED, resumed]
    played = read_run(
        RunDir.find(tmp_path, recorded(tmp_path, *made)), resolve("atari100k", "pong")
    )
    assert played.frames.tolist() == [4000] and played.reached == 4000
    again = [Episode(1200, 0, 7.0, 200), gauges(1300)]
    name = recorded(tmp_path, *made, *again)
    played = read_run(RunDir.find(tmp_path, name), resolve("atari100k", "pong"))
    assert played.returns.tolist() == [5.0, 7.0] and played.reached == 5200


def test_a_run_that_never_began_is_refused(tmp_path: Path) -> None:
    made = RunDir.find(tmp_path, recorded(tmp_path))
    with pytest.raises(ConfigError, match="has not begun"):
        read_run(made, resolve("atari100k", "pong"))


def test_the_command_shows_scores_beside_the_published_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--runs-dir", str(tmp_path)]
    one = recorded(tmp_path, STARTED, Episode(1000, 0, -20.0, 900), gauges(100_000))
    two = recorded(tmp_path, STARTED, Episode(99_900, 0, -2.0, 900), gauges(110_000))
    assert main(["scores", one, two, one, *where]) == 0
    text = capsys.readouterr().out
    assert text.count(one) == 1, "the same run twice is one run"
    assert "-2 over 1 run (mean of the last tenth" in text and "over 5 seeds (size200m)" in text
    assert "       8,000     1         1   -20 " in text and "        400,000" in text
    assert "not set up" not in text

    other = recorded(
        tmp_path, STARTED, Episode(99_900, 0, 30.0, 900), gauges(110_000), task="boxing"
    )
    assert main(["scores", two, other, *where]) == 0
    text = capsys.readouterr().out
    assert "up to frame" not in text, "several tasks are summed up"
    assert "atari100k, normalized over 2 tasks: mean" in text
    assert main(["scores", two, other, "--curve", *where]) == 0
    assert capsys.readouterr().out.count("up to frame") == 2

    assert main(["scores", two, other, "--json", *where]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [task["score"] for task in found["tasks"]] == [-2.0, 30.0]
    known = curves.find("atari100k", "pong")
    assert known is not None
    band = {"median": known.median[-1], "low": known.low[-1], "high": known.high[-1]}
    assert found["tasks"][0]["bins"][-1]["published"] == band
    assert found["suites"][0]["tasks"] == 2
    assert main(["scores", "nothing", *where]) == 2
    assert "there is no run 'nothing'" in capsys.readouterr().err


def test_the_newest_run_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = recorded(tmp_path, STARTED, Episode(1000, 0, -20.0, 900))
    assert main(["scores", "--runs-dir", str(tmp_path)]) == 0
    assert name in capsys.readouterr().out
