"""Runs of equal name are several runs, and what a run has lost is not a part of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import STARTED

from dreamer_async.cli import main
from dreamer_async.config import ConfigError, resolve, to_dict
from dreamer_async.scores.learning import read_curves
from dreamer_async.scores.runs import names_of
from dreamer_async.scores.suites import SuiteScores, official_scores
from dreamer_async.store.events import Episode, Event, EventWriter, Resumed
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir

BEGAN = replace(STARTED, suite="crafter", task="reward", frames_per_step=1)


def episode(step: int, wood: int) -> Episode:
    """One in which the agent has collected so much wood."""
    return Episode(step, 0, float(wood), 50, {"achievement/wood": float(wood)})


def record(root: Path, *events: Event, sweep: str = "") -> RunDir:
    """A run `a` below a folder, which is that of a sweep if it has a name."""
    if sweep:
        job = Job("a", "reward", "tiny", 0)
        SweepDir(root / sweep).write(Sweep(VERSION, "crafter", (), (job,)))
    config = to_dict(resolve("crafter", "reward", size="tiny"))
    run = RunDir.create(root / sweep, "a", config=config, now=None)
    with EventWriter(run.events_path, 0) as writer:
        for event in events:
            writer.emit(event)
    return run


@pytest.fixture
def twins(tmp_path: Path) -> list[RunDir]:
    """Two runs of one name, of different sweeps."""
    return [
        record(tmp_path, BEGAN, episode(100 * wood, wood), sweep=f"sweep-{wood}") for wood in (1, 0)
    ]


def test_names_differ_where_runs_do(tmp_path: Path, twins: list[RunDir]) -> None:
    alone = record(tmp_path / "x")
    assert names_of([*twins, alone]) == ["sweep-1/a", "sweep-0/a", "a"]
    same = record(tmp_path / "y")
    assert names_of([alone, twins[0], same]) == [str(alone.path), "sweep-1/a", str(same.path)]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_score_of_a_benchmark_counts_runs_of_equal_name(
    twins: list[RunDir], reverse: bool
) -> None:
    runs = [(run, "crafter", "reward") for run in (reversed(twins) if reverse else twins)]
    found = official_scores([*runs, runs[0]])
    assert (found["episodes"], found["success/wood"]) == (2, 50), "each once"


def test_a_run_without_a_score_is_named_as_one_of_its_sweep(tmp_path: Path) -> None:
    run = record(tmp_path, BEGAN, sweep="sweep-x")
    with pytest.raises(ConfigError, match="no finished episode of sweep-x/a"):
        official_scores([(run, "crafter", "reward")])


def test_curves_of_runs_of_equal_name_come_back_as_several(
    tmp_path: Path, twins: list[RunDir]
) -> None:
    others = [record(tmp_path / name, BEGAN, episode(300, 3)) for name in "xy"]
    target = tmp_path / "c.csv"
    runs = [str(run.path) for run in (*twins, *others)]
    assert main(["curves", *runs, "-o", str(target)]) == 0
    found = read_curves(target)
    assert [curve.run for curve in found] == ["sweep-1/a", "sweep-0/a", *runs[2:]]
    assert [curve.column("return", "step") for curve in found] == [
        *(([100], [1]), ([0], [0])),
        *[([300], [3])] * 2,
    ]
    assert "# sweep-1/a: dreamer-async train crafter" in target.read_text()


def test_scores_tell_runs_of_equal_name_apart(
    tmp_path: Path, twins: list[RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--runs-dir", str(tmp_path), "--json"]
    assert main(["scores", "sweep-1", "sweep-0/a", *where]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert [run["name"] for run in task["runs"]] == ["sweep-1/a", "sweep-0/a"]


def test_the_score_of_crafter_is_that_of_the_first_million_steps(tmp_path: Path) -> None:
    run = record(tmp_path, BEGAN, episode(10**6, 0), episode(10**6 + 1, 1))
    found = official_scores([(run, "crafter", "reward")])
    assert (found["episodes"], found["success/wood"]) == (1, 0)
    scores = SuiteScores("crafter", clock=iter(range(0, 10**6, 100)).__next__)
    assert scores.add(episode(10**6 + 1, 1), 5) is None
    assert scores.add(episode(10**6, 1), 5) is not None


def test_a_benchmarks_score_leaves_out_what_a_resume_has_lost(tmp_path: Path) -> None:
    lost, resumed = episode(200, 0), Resumed("checkpoints/step-100", 100, 0, 0.0)
    run = record(tmp_path, BEGAN, episode(100, 1), lost, BEGAN, resumed, episode(200, 2))
    found = official_scores([(run, "crafter", "reward")])
    assert (found["episodes"], found["success/wood"]) == (2, 100)
