"""kill -9 of a sweep, or of one of its runs, at any time: the next call goes on from there."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fault_runs import KILLS, PATIENCE, Ledger, log
from sweep import trainer_server
from tiny_run import TINY, kill_trainers, read

from dreamer_async.store import events
from dreamer_async.store.run_dir import RunDir
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir
from dreamer_async.sweep import work

pytestmark = pytest.mark.faults
LIVES = max(4, min(20, KILLS // 10))
SETTINGS = (*TINY, "train.steps=300", "train.checkpoint_seconds=0.3", "replay.capacity=400")


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepDir]:
    made = SweepDir(tmp_path / "runs" / "sweep-toy")
    made.write(Sweep(VERSION, "toy", SETTINGS, ()))
    yield made
    kill_trainers(tmp_path)


class Sweeps:
    """Sweeps in processes of their own, whose trainers are forked."""

    def __init__(self, sweep: SweepDir) -> None:
        self._sweep = sweep
        self._socket = str(sweep.path.parent.parent / "socket")
        self._server = self._start("serve")
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline and self._server.poll() is None
            time.sleep(0.1)

    def begin(self) -> subprocess.Popen[bytes]:
        root = str(self._sweep.path.parent)
        options = ["--jobs", "2", "--no-speeds", "--yes", "--runs-dir", root]
        return self._start("sweep", self._sweep.name, *options)

    def close(self) -> None:
        self._server.kill()
        self._server.wait()

    def _start(self, what: str, *words: str) -> subprocess.Popen[bytes]:
        tests = Path(__file__).parents[1]
        paths = os.pathsep.join(map(str, (tests, tests.parent)))
        line = [sys.executable, trainer_server.__file__, what, self._socket, *words]
        with open(self._sweep.path.parent.parent / "sweep.log", "ab") as out:
            variables = {**os.environ, "PYTHONPATH": paths}
            return subprocess.Popen(line, stdout=out, stderr=out, env=variables)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(self._socket)
            probe.sendall(b"")
            return True
        return False


def two_more(sweep: SweepDir) -> None:
    """Let there be two runs at least that are not over yet."""
    plan = sweep.read()
    open_ = [job for job in plan.jobs if work.stand(sweep, job).state not in work.OVER]
    more = range(len(plan.jobs), len(plan.jobs) + max(0, 2 - len(open_)))
    jobs = (*plan.jobs, *(Job(f"seek-s{seed}", "seek", "tiny", seed) for seed in more))
    sweep.write(Sweep(VERSION, "toy", SETTINGS, jobs))


def training(sweep: SweepDir) -> list[int]:
    """Process ids of those who train."""
    return [owner["pid"] for run in sweep.runs() if (owner := run.owner())]


def a_while(sweep: SweepDir, child: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Wait for any time: now and then while the sweep begins, mostly once something trains."""
    deadline, early = time.monotonic() + PATIENCE, chance.random() < 0.2
    while not early and child.poll() is None and not training(sweep):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(chance.uniform(0.0, 4.0))


def kill_some(sweep: SweepDir, child: subprocess.Popen[bytes], chance: random.Random) -> str:
    """SIGKILL to the sweep, to one of its runs, or to both; what was hit."""
    victim, hit = chance.choice(["sweep", "run", "both"]), ""
    if victim != "run" and child.poll() is None:
        child.kill()
        hit += "sweep"
    if victim != "sweep" and (pids := training(sweep)):
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)
            hit += "run"
    return hit


def test_kill_9_of_a_sweep_or_a_run_at_any_time_loses_nothing(sweep: SweepDir) -> None:
    chance, ledgers = random.Random(0), dict[RunDir, Ledger]()
    sweeps, hits = Sweeps(sweep), Counter[str]()
    done: dict[RunDir, int] = {}
    try:
        while hits.total() - hits[""] < LIVES or not both_were_hit(hits):
            two_more(sweep)
            child = sweeps.begin()
            a_while(sweep, child, chance)
            hits[kill_some(sweep, child, chance)] += 1
            child.send_signal(signal.SIGTERM)  # where it lives
            child.wait(PATIENCE)
            for run in sweep.runs():
                faults = ledgers.setdefault(run, Ledger(run)).faults()
                assert faults == [], (run.name, faults, log(run)[-500:])
            for run, size in done.items():
                assert run.events_path.stat().st_size == size, f"{run.name} was begun once more"
            done |= {run: run.events_path.stat().st_size for run in finished(sweep)}
        assert sweeps.begin().wait(PATIENCE) == 0, sweep_log(sweep)
    finally:
        sweeps.close()
    assert {work.stand(sweep, job).state for job in sweep.read().jobs} == {"completed"}
    lives = [life(run) for run in sweep.runs()]
    assert sum(lives) >= len(lives) + LIVES // 8, "the kills must hit runs that have begun"


def both_were_hit(hits: Counter[str]) -> bool:
    return all(any(victim in hit for hit in hits) for victim in ("sweep", "run"))


def life(run: RunDir) -> int:
    """Check that a complete run went on each time from all it had announced; its lives."""
    ends, lives, steps, updates = Counter[str](), 0, 0, 0
    for event in read(run):
        if isinstance(event, events.Resumed):
            assert event.env_steps >= steps and event.updates >= updates, (run.name, event)
        elif isinstance(event, events.RunFinished):
            ends[event.reason] += 1
        elif isinstance(event, events.Checkpointed):
            updates = max(updates, event.updates)
        lives += isinstance(event, events.RunStarted)
        steps = max(steps, getattr(event, "env_steps", 0))
    assert ends["completed"] == 1 and not ends["failed"], (run.name, ends)
    return lives


def finished(sweep: SweepDir) -> list[RunDir]:
    jobs = [job for job in sweep.read().jobs if work.stand(sweep, job).state == "completed"]
    return [sweep.run(job) for job in jobs]


def sweep_log(sweep: SweepDir) -> str:
    return (sweep.path.parent.parent / "sweep.log").read_text()[-3000:]
