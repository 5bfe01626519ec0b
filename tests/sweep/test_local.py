"""A sweep on this machine: what begins, what goes on, what ends when, and what is named."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweep import stand_in

from dreamer_async.store.run_dir import RunDir, RunNotFound
from dreamer_async.store.run_lock import RunInUse
from dreamer_async.store.sweep_dir import VERSION, Job, Sweep, SweepDir, find_runs
from dreamer_async.sweep import local, work
from dreamer_async.sweep.local import Listed, Local, Slot, slots

NAMES = ("a-s0", "b-s0", "c-s0", "d-s0")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    made = SweepDir(tmp_path / "sweep-toy")
    jobs = tuple(Job(name, "catch", "tiny", 0) for name in NAMES)
    made.write(Sweep(VERSION, "toy", (), jobs))
    return made


def pretend(monkeypatch: pytest.MonkeyPatch, **plan: object) -> None:
    """Let trainers be stand-ins; `plan` says how many steps a run takes, and which fails."""
    monkeypatch.setattr(work, "trainer", work.trainer)  # to be put back
    stand_in.command(json.dumps({name.replace("_", "-"): value for name, value in plan.items()}))


def carry_out(
    sweep: SweepDir,
    places: int = 2,
    act: Callable[[Local], object] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Local:
    """Carry out what is to do; `act` runs in the loop as soon as every place has a run."""
    standings = [work.stand(sweep, job) for job in sweep.read().jobs]
    todo = [each.job for each in standings if each.to_do]
    running = [each.job for each in standings if each.running]
    done = Local(sweep, Listed(todo), running, say)

    async def meanwhile() -> None:
        while act is not None and len(seen(sweep)) < places:
            await asyncio.sleep(0.01)
        if act is not None:
            act(done)

    async def main() -> None:
        await asyncio.gather(meanwhile(), done.carry_out(slots(places, ["4", "7"], 2)))

    asyncio.run(main())
    return done


def states(sweep: SweepDir) -> dict[str, str]:
    return {job.name: work.stand(sweep, job).state for job in sweep.read().jobs}


def seen(sweep: SweepDir) -> list[str]:
    """Name, GPUs and options of every trainer that has begun, in this order."""
    path = sweep.path / stand_in.SEEN
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.replace(" begins", "") for line in lines if " begins " in line]


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
    pretend(monkeypatch, a_s0=3000, b_s0=3000)
    done = carry_out(sweep, act=lambda _: os.kill(os.getpid(), number))
    assert done.signal == number and not done.failed
    expected = {"a-s0": "stopped", "b-s0": "stopped", "c-s0": "waiting", "d-s0": "waiting"}
    assert states(sweep) == expected
    pretend(monkeypatch)
    carry_out(sweep)
    assert set(states(sweep).values()) == {"completed"}
    assert ["--resume" in line for line in seen(sweep) if "a-s0" in line] == [False, True]


def test_a_signal_lets_every_run_save_when_nobody_reads_any_more(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl+C ends the `tee` behind a pipe as well, and a terminal that is closed sends SIGHUP."""
    pretend(monkeypatch, a_s0=3000, b_s0=3000)
    read, write = os.pipe()
    os.close(read)
    pipe = open(write, "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", pipe)
    say = local.line_printer()
    done = carry_out(sweep, act=lambda _: os.kill(os.getpid(), signal.SIGHUP), say=say)
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
    assert done.signal == signal.SIGHUP and not done.failed
    assert [states(sweep)[name] for name in NAMES[:2]] == ["stopped", "stopped"]


def test_an_error_of_the_sweep_lets_every_run_save_before_it_is_raised(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of this process may kill its children."""
    pretend(monkeypatch, a_s0=3000, b_s0=2)

    class DiskFull(Listed):
        def ended(self, job: Job, standing: work.Standing) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    done = Local(sweep, DiskFull(sweep.read().jobs), [], lambda text: None)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(done.carry_out(slots(2, [], 2)))
    assert states(sweep) == dict.fromkeys(NAMES, "waiting") | {"a-s0": "stopped"} | {
        "b-s0": "completed"
    }


def test_runs_outlive_a_kill_and_are_waited_for(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next starts nothing in the place of a run that still trains."""
    pretend(monkeypatch, a_s0=150)
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


def test_a_run_that_somebody_else_has_begun_meanwhile_is_waited_for(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a trainer of a sweep that was killed before its run was locked."""
    pretend(monkeypatch, a_s0=150)
    run = work.make(sweep, sweep.read(), sweep.read().jobs[0])
    other = subprocess.Popen(work.trainer(run))
    while run.owner() is None:
        time.sleep(0.02)
    done = Local(sweep, Listed(sweep.read().jobs), [], lambda text: None)
    asyncio.run(done.carry_out(slots(2, [], 2)))
    assert other.wait() == 0 and not done.failed
    assert set(states(sweep).values()) == {"completed"} and len(seen(sweep)) == len(NAMES)


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
    pairs = slots(3, ["0", "1", "2", "3", "4"], 16, devices=2)
    assert [(s.threads, s.gpu) for s in pairs] == [(2, "0,1"), (2, "2,3"), (2, "0,1")]
    assert [(s.threads, s.gpu) for s in slots(2, [], 16, devices=4)] == [(2, "")] * 2
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


def test_a_run_on_several_devices_is_a_launcher_of_ranks(sweep: SweepDir) -> None:
    run = work.make(sweep, sweep.read(), sweep.read().jobs[0])
    assert "--devices=4" in work.trainer(run, ["train.threads=2"], 4)
    assert not [word for word in work.trainer(run) if "--devices" in word]


def test_a_run_that_was_given_up_is_not_ended_at_once_by_a_stop(sweep: SweepDir) -> None:
    """A trainer takes a second signal for a person who insists."""
    done = Local(sweep, Listed([]), [], lambda text: None)
    sent: list[int] = []
    done._children["a-s0"] = SimpleNamespace(send_signal=sent.append)  # type: ignore[assignment]
    done._end("a-s0")
    done.stop("on request")
    assert len(sent) == 1
    done._signalled(signal.SIGINT)
    assert len(sent) == 1, "the first signal after somebody else's wish"
    done._signalled(signal.SIGINT)
    assert len(sent) == 2 and done.signal == signal.SIGINT


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
        '{"version": 1, "suite": "toy", "settings": [], "jobs": [], "devices": 0}',
    ],
)
def test_a_damaged_or_hostile_file_is_refused_by_name(sweep: SweepDir, text: str) -> None:
    sweep.file_path.write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json"):
        sweep.read()
