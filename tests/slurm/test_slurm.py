"""Sweeps by a real Slurm: a run that its time limit cuts again and again, and one preempted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dreamer_async.config import ConfigError
from dreamer_async.store.events import RunFinished, RunStarted
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir
from dreamer_async.sweep.slurm import Limits, minutes_of
from tests.slurm.cluster import cluster, missing
from tests.tiny_run import TINY, read

ROOT = Path(__file__).resolve().parents[2]
SLOW = [f"-s{text}" for text in TINY if not text.startswith(("train.train_ratio", "env.num"))]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("2:30", 2), ("4:00:00", 240), ("1-12", 2160), ("2-12:30:00", 3630), ("1:00", 1)],
)
def test_time_limits_are_read_as_slurm_does(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "0", "0:30", "1:2:3:4", "-5", "1.5"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--time"):
        minutes_of(text)


def test_options_of_sbatch_are_passed_on() -> None:
    limits = Limits("60", "main", gpus=2, cpus=8, sbatch=("--account=me", "exclusive"))
    assert limits.parameters() == {
        "time": 60,
        "partition": "main",
        "cpus_per_task": 8,
        "gpus_per_node": 2,
        "signal_delay_s": 180,
        "additional_parameters": {"requeue": True, "account": "me", "exclusive": True},
    }
    assert "gpus_per_node" not in Limits("8", gpus=0).parameters()
    assert Limits("8").parameters()["signal_delay_s"] == 120
    for wrong in ("", "--signal=TERM@5", "array=1-3"):
        with pytest.raises(ConfigError, match="--sbatch"):
            Limits("60", sbatch=(wrong,)).parameters()


# -- a real one ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm() -> Iterator[Mapping[str, str]]:
    pytest.importorskip("submitit")
    if problem := missing():
        pytest.skip(problem)
    with cluster() as environment:
        yield environment


def call(environment: Mapping[str, str], folder: Path, *words: str) -> str:
    line = [sys.executable, "-m", "dreamer_async", *words]
    paths = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        line,
        cwd=folder,
        env={**environment, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sweep_of(environment: Mapping[str, str], folder: Path, *words: str) -> str:
    fixed = ["--on", "slurm", "--gpus", "0", "--cpus", "1", "--size", "tiny", "--no-speeds"]
    return call(environment, folder, "sweep", "toy", "--task", "catch", *fixed, *SLOW, *words)


def wait_for(runs: Sequence[RunDir], environment: Mapping[str, str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not all(any(end.reason == "completed" for end in ends(run)) for run in runs):
        if time.monotonic() > deadline:
            line = ["scontrol", "show", "job"]
            told = subprocess.run(
                line, env=environment, capture_output=True, text=True, check=False
            )
            pytest.fail(f"not done: {[ends(run) for run in runs]} {told.stdout[-3000:]}")
        time.sleep(1.0)


def ends(run: RunDir) -> list[RunFinished]:
    if not run.events_path.exists():
        return []
    return [event for event in read(run) if isinstance(event, RunFinished)]


@pytest.mark.slurm
@pytest.mark.slow
def test_runs_that_reach_their_time_limit_go_on_by_themselves(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    """A minute a job, and environments that take three: all steps in one event stream each."""
    pace = ["-s", "env.num_envs=1", "-s", "train.train_ratio=8"]
    steps = os.environ.get("SLURM_STEPS", "60000")
    told = sweep_of(slurm, tmp_path, "--steps", steps, "--seeds", "1", "--time", "1", *pace)
    assert "submitted 1 runs" in told
    directory = SweepDir(tmp_path / "runs/sweep-toy")
    assert "queued already" in sweep_of(
        slurm, tmp_path, "--steps", steps, "--seeds", "1", "--time", "1", *pace
    ), "what waits or runs is not submitted again"
    (run,) = directory.runs()
    wait_for([run], slurm, 1200)
    stops = [end for end in ends(run) if end.reason == "stopped"]
    assert len(stops) >= 3, "cut off three times"
    assert ends(run)[-1].reason == "completed" and ends(run)[-1].env_steps >= int(steps)
    assert [end.env_steps for end in stops] == sorted(end.env_steps for end in stops)
    starts = [event for event in read(run) if isinstance(event, RunStarted)]
    assert len(starts) == len(ends(run)), "each start has its end: nothing was killed"
    assert "1 completed" in call(slurm, tmp_path, "sweep", "sweep-toy", "--on", "slurm")


@pytest.mark.slurm
@pytest.mark.slow
def test_a_preempted_run_goes_on(slurm: Mapping[str, str], tmp_path: Path) -> None:
    """A job of a partition with a higher priority takes the node for a while."""
    pace = ["-s", "env.num_envs=1", "-s", "train.train_ratio=8"]
    sweep_of(slurm, tmp_path, "--steps", "8000", "--seeds", "1", "--time", "30", *pace)
    (run,) = SweepDir(tmp_path / "runs/sweep-toy").runs()
    deadline = time.monotonic() + 120
    while not run.events_path.exists() or not any(
        getattr(event, "phase", "") == "training" for event in read(run)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    line = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(line, env=slurm, check=True)
    wait_for([run], slurm, 600)
    assert [end.reason for end in ends(run)] == ["stopped", "completed"]
