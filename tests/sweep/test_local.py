"""A sweep on this machine: what begins, what goes on, what ends when, and what is named."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dreamer_async.store.run_dir import RunDir, RunNotFound
from dreamer_async.store.run_lock import RunInUse
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir, find_runs
from dreamer_async.sweep import local, work
from dreamer_async.sweep.local import Listed, Local, Slot, slots

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
from dreamer_async.store.events import EventWriter, Gauges, PhaseChanged, RunFinished
from dreamer_async.store.run_dir import RunDir

path, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
run, stop = RunDir(path), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with run.lock(), EventWriter(run.events_path, int("--resume" in sys.argv)) as writer:
    writer.emit(PhaseChanged("training", 1, 0))
    with open(path.parent / "seen.txt", "a") as seen:
        seen.write(f"{run.name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {sys.argv[3:]}\\n")
    end = time.monotonic() + plan.get(run.name, 0.05)
    while time.monotonic() < end and not stop:
        time.sleep(0.01)
    failed = plan.get("fails") == run.name
    reason = "failed" if failed else "stopped" if stop else "completed"
    writer.emit(RunFinished(reason, 10, 0, 70 * failed))
sys.exit(70 * failed)
"""
"""What a trainer does with its run directory, without training: a lock, a stream, an end."""
NAMES = ("a-s0", "b-s0", "c-s0", "d-s0")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    made = SweepDir(tmp_path / "sweep-toy")
    jobs = tuple(Job(name, "catch", "tiny", 0) for name in NAMES)
    made.write(Sweep(VERSION, "toy", (), jobs))
    return made


def pretend(monkeypatch: pytest.MonkeyPatch, **plan: object) -> None:
    """Let trainers be `TRAINER`; `plan` says how many seconds a run takes, and which fails."""
    import json

    named = {name.replace("_", "-"): value for name, value in plan.items()}

    def command(run: RunDir, overrides: Sequence[str] = ()) -> list[str]:
        options = ["--resume"] if run.events_path.exists() else []
        return [sys.executable, "-c", TRAINER, str(run.path), json.dumps(named), *options]

    monkeypatch.setattr(work, "trainer", command)


def carry_out(
    sweep: SweepDir, places: int = 2, act: Callable[[Local], object] | None = None
) -> Local:
    """Carry out what is to do; `act` runs in the loop when every place has a trainer."""
    said: list[str] = []
    standings = [work.stand(sweep, job) for job in sweep.read().jobs]
    todo = [each.job for each in standings if each.to_do]
    running = [each.job for each in standings if each.running]
    done = Local(sweep, Listed(todo), running, said.append)

    async def main() -> None:
        acting = asyncio.create_task(once_all_train()) if act is not None else None
        await done.carry_out(slots(places, ["4", "7"], 2))
        assert acting is None or acting.done()

    async def once_all_train() -> None:
        while not (sweep.path / "seen.txt").exists() or len(seen(sweep)) < places:
            await asyncio.sleep(0.02)
        assert act is not None
        act(done)

    asyncio.run(main())
    return done


def states(sweep: SweepDir) -> dict[str, str]:
    return {job.name: work.stand(sweep, job).state for job in sweep.read().jobs}


def seen(sweep: SweepDir) -> list[str]:
    return (sweep.path / "seen.txt").read_text().splitlines()


def test_every_run_is_made_and_trained_once_each_with_one_gpu(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    assert set(states(sweep).values()) == {"waiting"}
    carry_out(sweep)
    assert set(states(sweep).values()) == {"completed"}
    assert sorted(line.split()[0] for line in seen(sweep)) == list(NAMES)
    assert {line.split()[1] for line in seen(sweep)} == {"4", "7"}
    carry_out(sweep)
    assert len(seen(sweep)) == 4, "what is complete is skipped"


def test_a_failure_is_named_and_the_others_go_on(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, fails="b-s0")
    done = carry_out(sweep)
    assert [(job.name, code) for job, code in done.failed] == [("b-s0", 70)]
    assert states(sweep) == dict.fromkeys(NAMES, "completed") | {"b-s0": "failed"}
    carry_out(sweep)
    assert len(seen(sweep)) == 4, "what failed is not tried again unless that is asked for"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_every_run_save_and_the_next_call_goes_on(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pretend(monkeypatch, a_s0=60, b_s0=60)
    done = carry_out(sweep, act=lambda _: os.kill(os.getpid(), number))
    assert done.stopping == number and not done.failed
    expected = {"a-s0": "stopped", "b-s0": "stopped", "c-s0": "waiting", "d-s0": "waiting"}
    assert states(sweep) == expected
    pretend(monkeypatch)
    carry_out(sweep)
    assert set(states(sweep).values()) == {"completed"}
    assert ["--resume" in line for line in seen(sweep) if "a-s0" in line] == [False, True]


def test_runs_outlive_a_kill_and_are_waited_for(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next starts nothing in the place of a run that still trains."""
    pretend(monkeypatch, a_s0=3)
    run = work.make(sweep, sweep.read(), sweep.read().jobs[0])
    child = subprocess.Popen(work.trainer(run), env=Slot(1, 1, "7").environment())
    while run.owner() is None:
        time.sleep(0.02)
    assert local.place_of(run) == 1
    done = carry_out(sweep)
    assert child.wait() == 0 and not done.failed
    assert set(states(sweep).values()) == {"completed"}
    assert sorted(line.split()[0] for line in seen(sweep)) == list(NAMES), "each once"
    assert seen(sweep)[1].split()[1] == "4", "GPU 7 is taken"


def test_a_run_that_cannot_be_made_is_named(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    (sweep.path / "a-s0").write_text("a file in its way")
    done = carry_out(sweep)
    assert [job.name for job, _ in done.failed] == ["a-s0"]
    assert states(sweep)["b-s0"] == "completed"


def test_places_share_cores_and_gpus() -> None:
    assert [(s.threads, s.gpu) for s in slots(3, ["0", "1"], 8)] == [(2, "0"), (2, "1"), (2, "0")]
    assert [(s.threads, s.gpu) for s in slots(4, [], 2)] == [(1, "")] * 4
    assert slots(1, [], 64)[0].threads == 8
    assert "CUDA_VISIBLE_DEVICES" not in {**Slot(0, 1).environment()} or os.environ.get(
        "CUDA_VISIBLE_DEVICES"
    )


def test_a_share_of_threads_is_given_unless_the_sweep_says_how_many() -> None:
    job = Job("a", "catch", "tiny", 0)
    assert work.thread_settings(Sweep(1, "toy", (), ()), job, 2) == ["train.threads=2"]
    assert work.thread_settings(Sweep(1, "toy", ("train.threads=3",), ()), job, 2) == []
    varied = Job("a", "catch", "tiny", 0, {"train.threads": "1"})
    assert work.thread_settings(Sweep(1, "toy", (), ()), varied, 2) == []


def test_one_process_carries_a_sweep_out(sweep: SweepDir) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from dreamer_async.store.sweep_dir import SweepDir\n"
        "with SweepDir(Path(sys.argv[1])).lock(): pass"
    )
    line = [sys.executable, "-c", code, str(sweep.path)]
    assert subprocess.run(line, check=False).returncode == 0
    with sweep.lock():
        refused = subprocess.run(line, check=False, capture_output=True, text=True)
        assert RunInUse.__name__ in refused.stderr


def test_a_name_of_a_sweep_stands_for_its_runs(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sweep.path.parent
    with pytest.raises(RunNotFound, match="no run of the sweep"):
        find_runs(root, ["sweep-toy"])
    pretend(monkeypatch)
    carry_out(sweep)
    alone = RunDir.create(root, "other", config={})
    found = find_runs(root, [alone.name, "sweep-toy", "sweep-toy/b-s0"])
    assert [run.name for run in found] == [alone.name, *NAMES]
    assert RunDir.find(root, "sweep-toy/b-s0").path == sweep.path / "b-s0"
    with pytest.raises(RunNotFound, match="is a sweep: name one of its runs"):
        RunDir.find(root, "sweep-toy")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"version": 1}',
        '{"version": 2, "suite": "toy", "settings": [], "jobs": []}',
        '{"version": 1, "suite": "toy", "settings": [], "jobs": [{"name": "../x", "task": "a", '
        '"size": "tiny", "seed": 0}]}',
    ],
)
def test_a_damaged_or_hostile_file_is_refused_by_name(sweep: SweepDir, text: str) -> None:
    sweep.file_path.write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json"):
        sweep.read()
