"""The demo trains, scores, films and says what comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer_async.cli import demo, main
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.summary import summarize
from tests.tiny_run import TINY


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SETTINGS", TINY)
    monkeypatch.setattr(demo, "STEPS", dict.fromkeys(demo.STEPS, 200))
    monkeypatch.setattr(demo, "EPISODES", 3)


def test_it_trains_scores_and_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(monkeypatch)
    words = ["demo", "--plain", "--device", "cpu", "--runs-dir", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    (run,) = map(RunDir, tmp_path.iterdir())
    assert summarize(run).state == "completed" and run.name.endswith("-demo")
    assert "chance scores 1.79, the best is 6.75" in said.splitlines()[0]
    assert "3 episodes: mean" in said and f"dreamer-async play {run.name}" in said
    assert (run.pictures / "dream.gif").read_bytes()[:3] == b"GIF"
    assert main(["runs", "rm", run.name, "--yes", "--runs-dir", str(tmp_path)]) == 0
    assert not run.path.exists(), "all of it is its own"


def test_a_task_that_it_lacks_creates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--task", "pong", "--runs-dir", str(tmp_path)]) == 2
    assert "expected seek or catch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("task", demo.TASKS)
def test_it_really_learns(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine tenths of the way from chance to the best, in all episodes but few."""
    words = ["demo", "--task", task, "--plain", "--device", "cpu", "--runs-dir", str(tmp_path)]
    assert main(words) == 0
    mean = float(capsys.readouterr().out.split("episodes: mean ")[1].split()[0])
    random, best = demo._known(demo.TASKS[task][0])
    assert mean > random + 0.9 * (best - random)
