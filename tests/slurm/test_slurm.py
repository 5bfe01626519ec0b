"""Sweeps by a real Slurm: runs that its time limit cuts again and again, preempted and stopped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dreamer_async.config import ConfigError
from dreamer_async.store.events import PhaseChanged, RunFinished, RunStarted
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import SweepDir
from dreamer_async.sweep.slurm import Limits, minutes_of
from tests.slurm.cluster import cluster, missing
from tests.tiny_run import TINY, extend, read

ROOT = Path(__file__).resolve().parents[2]
PACE = [f"-s{text}" for text in TINY]


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
    return call(environment, folder, "sweep", "toy", "--task", "catch", *fixed, *words)


def wait_until(
    true: Callable[[], bool],
    runs: Sequence[RunDir],
    environment: Mapping[str, str],
    seconds: float,
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            jobs = subprocess.check_output(["scontrol", "show", "job"], env=environment, text=True)
            pytest.fail(f"not yet: {[ends(run) for run in runs]} {jobs[-3000:]}")
        time.sleep(1.0)


def queue(environment: Mapping[str, str], *options: str) -> str:
    line = ["squeue", "--noheader", *options]
    return subprocess.check_output(line, env=environment, text=True).strip()


def stops(run: RunDir) -> list[RunFinished]:
    return [end for end in ends(run) if end.reason == "stopped"]


def ends(run: RunDir) -> list[RunFinished]:
    if not run.events_path.exists():
        return []
    return [event for event in read(run) if isinstance(event, RunFinished)]


@pytest.mark.slurm
@pytest.mark.slow
def test_runs_that_reach_their_time_limit_go_on_by_themselves(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    """Two minutes a job, of which Slurm may take one away; three times it is not enough."""
    words = ["--steps", "1000000", "--seeds", "1", "--time", "2", *PACE]
    assert "submitted 1 runs" in sweep_of(slurm, tmp_path, *words)
    again = sweep_of(slurm, tmp_path, *words)
    assert "queued already" in again, "what waits or runs is not submitted a second time"
    (run,) = SweepDir(tmp_path / "runs/sweep-toy").runs()
    wait_until(lambda: len(stops(run)) >= 3, [run], slurm, 900)
    steps = stops(run)[-1].env_steps + 200
    extend(run, f"train.steps={steps}")
    wait_until(lambda: ends(run)[-1].reason == "completed", [run], slurm, 400)
    seen = [end.env_steps for end in ends(run)]
    assert seen == sorted(seen) and len(set(seen)) == len(seen), "each job went on from the last"
    assert seen[-1] >= steps
    starts = [event for event in read(run) if isinstance(event, RunStarted)]
    assert len(starts) == len(ends(run)), "each start has its end: nothing was killed"
    wait_until(lambda: not queue(slurm), [run], slurm, 60)


@pytest.mark.slurm
@pytest.mark.slow
def test_a_preempted_run_goes_on(slurm: Mapping[str, str], tmp_path: Path) -> None:
    """A job of a partition with a higher priority takes the node for a while."""
    words = ["--steps", "1000000", "--seeds", "1", "--time", "60", *PACE]
    sweep_of(slurm, tmp_path, *words)
    (run,) = SweepDir(tmp_path / "runs/sweep-toy").runs()
    wait_until(lambda: trains(run), [run], slurm, 200)
    line = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(line, env=slurm, check=True)
    wait_until(lambda: bool(ends(run)), [run], slurm, 200)
    assert ends(run)[0].reason == "stopped" and "SIGTERM" in ends(run)[0].message
    steps = ends(run)[0].env_steps + 200
    extend(run, f"train.steps={steps}")
    wait_until(lambda: ends(run)[-1].reason == "completed", [run], slurm, 400)
    assert len(ends(run)) == 2 and ends(run)[-1].env_steps >= steps


@pytest.mark.slurm
@pytest.mark.slow
def test_a_run_on_two_devices_saves_once_at_each_end_and_a_stop_ends_it_for_good(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    """Preempted, told that its time is over, stopped, and at last complete."""
    words = ["--steps", "1000000", "--seeds", "1", "--time", "60", "--devices", "2", "--cpus", "2"]
    assert "submitted 1 runs" in sweep_of(slurm, tmp_path, *words, *PACE)
    (run,) = SweepDir(tmp_path / "runs/sweep-toy").runs()
    wait_until(lambda: trains(run), [run], slurm, 400)
    line = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"]
    subprocess.run(line, env=slurm, check=True)
    wait_until(lambda: trains(run, 2), [run], slurm, 600)
    line = ["scancel", "--signal=USR2", queue(slurm, "--format=%A")]
    subprocess.run(line, env=slurm, check=True)
    wait_until(lambda: trains(run, 3), [run], slurm, 600)
    assert "sweep-toy has stopped" in call(slurm, tmp_path, "stop", "sweep-toy", "--timeout", "400")
    assert not queue(slurm) and not trainers(tmp_path)
    assert all(end.reason == "stopped" and end.exit_code == 0 for end in ends(run))
    preempted, cut, stopped = (end.message for end in ends(run))
    assert "SIGTERM" in preempted and "SIGTERM" in cut and "signal" not in stopped
    extend(run, f"train.steps={ends(run)[-1].env_steps + 200}")
    assert "is not running" in call(slurm, tmp_path, "stop", "sweep-toy")
    assert "submitted 1 runs" in sweep_of(slurm, tmp_path, *words, *PACE)
    wait_until(lambda: ends(run)[-1].reason == "completed", [run], slurm, 600)
    started = [event for event in read(run) if isinstance(event, RunStarted)]
    assert [each.ranks for each in started] == [2] * len(ends(run)) == [2] * 4


@pytest.mark.slurm
@pytest.mark.slow
def test_a_sweep_that_is_stopped_while_a_job_begins_or_waits_does_not_begin(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    """The first job has its place and loads its programs; the second waits for it."""
    words = ["--steps", "1000000", "--seeds", "2", "--time", "60", "--jobs", "1", *PACE]
    assert "submitted 2 runs" in sweep_of(slurm, tmp_path, *words)
    runs = SweepDir(tmp_path / "runs/sweep-toy").runs()
    wait_until(lambda: "RUNNING" in queue(slurm, "--format=%T"), runs, slurm, 60)
    assert "sweep-toy has stopped" in call(slurm, tmp_path, "stop", "sweep-toy", "--timeout", "400")
    assert not queue(slurm) and not trainers(tmp_path)
    assert not ends(runs[1])


def trainers(folder: Path) -> list[str]:
    """Command lines of processes that have to do with runs in a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if f"{folder}/runs" in line]


def trains(run: RunDir, times: int = 1) -> bool:
    """Whether its environments step, for so many times by now."""
    return run.events_path.exists() and times <= sum(
        isinstance(event, PhaseChanged) and event.phase == "training" for event in read(run)
    )
