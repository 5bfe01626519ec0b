"""How often a run lies outside of all others: by chance, and when it learns something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_async.scores.learning import Curve
from dreamer_async.scores.overlap import outside

RUNS, WINDOWS, UPDATES = 7, 300, 10


def curves(shift: float = 0.0, without: str = "") -> list[Curve]:
    """Runs that differ by chance, the last one shifted."""
    rng, found = np.random.default_rng(1), []
    for seed in range(RUNS):
        curve = Curve("run", "toy/seek", "lockstep", seed)
        for update in range(0, WINDOWS * UPDATES, 5):
            noise = rng.normal(shift if seed == RUNS - 1 else 0.0)
            losses = {"loss/dyn": noise, "loss/reward": 1 + noise}
            if seed == 2:
                losses.pop(without, None)
            curve.points.append({"update": float(update), "step": float(update)} | losses)
        found.append(curve)
    return found


def test_runs_that_differ_by_chance_are_outside_in_two_of_as_many_windows_as_there_are_runs() -> (
    None
):
    for run in outside(curves(), UPDATES):
        assert run.windows == 2 * (WINDOWS - 1)
        assert abs((run.below + run.above) / run.windows - 2 / RUNS) < 0.1


def test_one_that_learns_something_else_is_outside_nearly_always() -> None:
    *others, last = outside(curves(shift=-6.0), UPDATES)
    assert last.below > 0.99 * last.windows and last.above == 0
    assert all(run.below < 0.05 * run.windows for run in others)


def test_a_loss_that_one_run_lacks_does_not_count() -> None:
    assert outside(curves(without="loss/reward"), UPDATES)[0].windows == WINDOWS - 1


@pytest.mark.parametrize(
    ("runs", "updates", "message"),
    [
        (curves()[:2], UPDATES, "2 runs: of fewer than three, each is outside"),
        ([], UPDATES, "0 runs"),
        ([*curves(), Curve("run", "toy/catch", "lockstep", 0)], UPDATES, "toy/catch, toy/seek"),
        (curves(), 10 * WINDOWS * UPDATES, "no window of 30000 updates has losses of all runs"),
    ],
)
def test_what_cannot_be_compared_is_said(runs: list[Curve], updates: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outside(runs, updates)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dreamer_async.scores.overlap", "200", str(tmp_path / "no.csv")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith("no.csv'")
