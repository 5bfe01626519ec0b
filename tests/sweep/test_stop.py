"""A sweep that is stopped or killed, with what it runs, goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sweep import stand_in
from tiny_run import kill_trainers

from dreamer_async import cli
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.sweep import stop as stopping
from dreamer_async.sweep import work

NAMES = ("a-s0", "b-s0", "c-s0")
PATIENCE = 120.0


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepDir]:
    made = SweepDir(tmp_path / "runs" / "sweep-toy")
    jobs = tuple(Job(name, "catch", "tiny", 0) for name in NAMES)
    made.write(Sweep(VERSION, "toy", (), jobs))
    yield made
    kill_trainers(tmp_path)


def begin(sweep: SweepDir, steps: int) -> subprocess.Popen[bytes]:
    """Carry a sweep out, two runs at a time, in a process of its own."""
    words = [stand_in.__file__, "sweep", json.dumps(dict.fromkeys(NAMES, steps)), sweep.name]
    options = ["--jobs", "2", "--no-speeds", "--yes", "--runs-dir", str(sweep.path.parent)]
    log = open(sweep.path.parent.parent / "sweep.log", "ab")  # noqa: SIM115  the child has it
    with log:
        return subprocess.Popen([sys.executable, *words, *options], stdout=log, stderr=log)


def seen(sweep: SweepDir) -> list[list[str]]:
    path = sweep.path / stand_in.SEEN
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(true: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def training(sweep: SweepDir) -> list[RunDir]:
    return [run for run in sweep.runs() if run.owner() is not None]


def test_a_sweep_is_stopped_with_its_runs_and_goes_on(
    sweep: SweepDir, capsys: pytest.CaptureFixture[str]
) -> None:
    log, stop = sweep.path.parent.parent / "sweep.log", ["stop", sweep.name]
    stop += ["--runs-dir", str(sweep.path.parent)]
    child = begin(sweep, 100_000)
    wait_for(lambda: len(training(sweep)) == 2, log)
    assert cli.main(stop) == 0
    assert "sweep-toy has stopped; continue with `dreamer-async sweep sweep-toy`" in (
        capsys.readouterr().out
    )
    assert child.wait(PATIENCE) == 0 and not training(sweep)
    assert sorted(words[0] for words in seen(sweep) if words[1] == "stopped") == ["a-s0", "b-s0"]
    assert cli.main(stop) == 0 and "is not running" in capsys.readouterr().out
    child = begin(sweep, 1)
    assert child.wait(PATIENCE) == 0, log.read_text()
    assert sorted(words[0] for words in seen(sweep) if words[1] == "completed") == [*NAMES]


def test_ctrl_c_behind_a_pipe_that_it_ends_as_well_saves_every_run(sweep: SweepDir) -> None:
    """As `dreamer-async sweep ... | tee log` has it."""
    plan = json.dumps(dict.fromkeys(NAMES, 100_000))
    words = [sys.executable, stand_in.__file__, "sweep", plan, sweep.name, "--jobs", "2"]
    words += ["--no-speeds", "--yes", "--runs-dir", str(sweep.path.parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        wait_for(lambda: len(training(sweep)) == 2, sweep.file_path)
        child.stdout.close()
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130 and not training(sweep)
    assert sorted(words[0] for words in seen(sweep) if words[1] == "stopped") == ["a-s0", "b-s0"]


def test_runs_that_nobody_carries_out_any_more_are_stopped_too(sweep: SweepDir) -> None:
    child = begin(sweep, 100_000)
    wait_for(lambda: len(training(sweep)) == 2, sweep.path.parent.parent / "sweep.log")
    child.kill()
    child.wait()
    assert cli.main(["stop", sweep.name, "--runs-dir", str(sweep.path.parent)]) == 0
    assert not training(sweep)


def test_a_sweep_or_its_runs_are_killed_and_nothing_is_lost_or_done_twice(sweep: SweepDir) -> None:
    """See `tests/faults/test_sweep.py` for twenty kills, of real trainers."""
    chance, log = random.Random(0), sweep.path.parent.parent / "sweep.log"
    before = dict.fromkeys(NAMES, 0)
    for victim in ("sweep", "run"):
        child = begin(sweep, 100)
        wait_for(lambda: training(sweep), log)
        time.sleep(chance.uniform(0.0, 1.0))
        if victim == "sweep":
            child.kill()
        else:
            for run in training(sweep)[:1]:
                with suppress(ProcessLookupError, TypeError):
                    os.kill((run.owner() or {})["pid"], signal.SIGKILL)
        code = child.wait(PATIENCE)
        assert code == -signal.SIGKILL if victim == "sweep" else code in (0, 1, 137), (
            log.read_text()
        )
        now = {run.name: stand_in.steps(run) for run in sweep.runs()}
        assert all(now.get(name, 0) >= taken for name, taken in before.items()), "taken is taken"
        before |= now
    assert begin(sweep, 100).wait(PATIENCE) == 0, log.read_text()
    ends = Counter(words[0] for words in seen(sweep) if words[1] == "completed")
    assert ends == dict.fromkeys(NAMES, 1), "each is completed once, and begun no more"
    assert {stand_in.steps(run) for run in sweep.runs()} == {100}, "no step is taken twice"
    assert {work.stand(sweep, job).state for job in sweep.read().jobs} == {"completed"}


QUEUE = {
    "squeue": 'ls "$QUEUE"',
    "scancel": 'for id; do rm "$QUEUE/$id"; [ $id != 7_0 ] || touch "$QUEUE/7_1"; done',
}
"""Programs of a Slurm whose queue is a directory; a job takes the place of the one before it."""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, script in QUEUE.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setattr(stopping, "QUEUE_SECONDS", 0.0)
    (tmp_path / "queue").mkdir()
    return tmp_path / "queue"


def jobs_of_slurm(sweep: SweepDir, queue: Path) -> None:
    sweep.write(sweep.read().changed("a-s0", batch_id="7_0").changed("b-s0", batch_id="7_1"))
    for name in ("7_0", "8_0"):
        (queue / name).touch()


def test_jobs_of_slurm_leave_the_queue_until_there_is_none(sweep: SweepDir, queue: Path) -> None:
    """One that comes after the first look, too; those of others stay."""
    jobs_of_slurm(sweep, queue)
    assert stopping.stop(sweep, PATIENCE) == (True, True, "")
    assert [path.name for path in queue.iterdir()] == ["8_0"]
    assert stopping.stop(sweep, PATIENCE) == (True, False, "")


def test_a_job_of_slurm_whose_run_trains_is_left_to_save(sweep: SweepDir, queue: Path) -> None:
    jobs_of_slurm(sweep, queue)
    run = RunDir.create(sweep.path, "a-s0", config={}, now=None)
    with run.lock():
        assert stopping.stop(sweep, 0.5) == (False, True, "")
    assert [request.command for request in run.take_requests()] == ["stop"], "asked once"
    assert (queue / "7_0").exists()


def test_a_queue_that_does_not_answer_is_said_and_not_waited_for(
    sweep: SweepDir, queue: Path
) -> None:
    jobs_of_slurm(sweep, queue)
    queue.rename(queue.with_name("gone"))
    in_time, ran, problem = stopping.stop(sweep, PATIENCE)
    assert in_time and not ran and "stay there: squeue failed: ls" in problem
