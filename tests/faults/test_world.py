"""The fault matrix, what the world does: clocks, signals, disks, memory, lying environments.

Every check has a control: a wrong program that the same check catches.
"""

from __future__ import annotations

import ast
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_runs import SEEK, Ledger, Server, log, until
from injections import CANNOT, HANGS
from tiny_run import UPDATES_PER_STEP, lacking_updates, make_run, newest, read

import dreamer_async
from dreamer_async.run import pipeline
from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import RunDir

pytestmark = pytest.mark.faults


SLOW = "train.train_ratio=0.5"
"""Few updates, for tests of many environment steps."""


def warnings(run: RunDir) -> list[str]:
    return [e.message for e in read(run) if isinstance(e, events.Warned)]


def saves(run: RunDir) -> int:
    return sum(isinstance(e, events.Checkpointed) for e in read(run))


# -- 0: starting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("thread", ["learner", "policy", "env", "checkpoint"])
def test_a_thread_that_cannot_be_set_up_ends_the_run(
    server: Server, tmp_path: Path, thread: str
) -> None:
    """It once ended in silence, and the run waited for it for ever."""
    run = make_run(tmp_path, "train.steps=40")
    assert server.train(run, {"thread_setup_fails": thread}) == 1, log(run)
    assert log(run).endswith("error: the device refused\n")
    (ended,) = (e for e in read(run) if isinstance(e, events.RunFinished))
    assert (ended.reason, ended.message) == ("failed", "the device refused")


# -- 3, 4: stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "code"), [({}, 0), ({"impatient_watchdog": 1}, 75)])
def test_a_trainer_that_is_suspended_while_it_stops_still_saves(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    """For longer than its grace period: that time is not its fault.

    A machine that is too busy to save in so short a time gets more of it.
    """
    inject = {"suspended_while_stopping": 30, **wrong}
    for grace in (1, 4, 16):
        settings = *SEEK, f"train.grace_seconds={grace}"
        run = make_run(tmp_path / str(grace), *settings, task="seek")
        if server.train(run, inject, suspended=1.25 * grace) == code:
            break
    else:
        raise AssertionError(log(run))
    ended = [e for e in read(run) if isinstance(e, events.RunFinished)]
    assert bool(ended) == (code == 0), "saved, and said so"


def test_without_a_watchdog_a_stuck_thread_is_not_bounded(server: Server, tmp_path: Path) -> None:
    """The control of the test with a thread stuck in C."""
    run = make_run(tmp_path, *SEEK, "train.grace_seconds=0.2", task="seek")
    with server.start(run, {"update_hangs": 5, "no_watchdog": 1}) as trainer:
        trainer.wait_until(lambda: HANGS in log(run))
        time.sleep(1.5)
        assert trainer.alive()


def test_a_trainer_that_does_not_hear_signals_saves_nothing(server: Server, tmp_path: Path) -> None:
    """The control of the tests of every way to stop."""
    run = make_run(tmp_path, *SEEK, "train.checkpoint_seconds=1000", task="seek")
    assert server.train(run, {"suspended_while_stopping": 30, "deaf": 1}) == -signal.SIGTERM
    assert saves(run) == 0


# -- 14, 15: time --------------------------------------------------------------------------------


def impossible(run: RunDir) -> list[str]:
    """Gauges that no clock of its own would give.

    A stage may seem to be busy for more than the time of a round where the kernel stopped the
    trainer between two looks at the clock, but not for many times as long.
    """
    return [
        f"{name} {value}"
        for event in read(run)
        if isinstance(event, events.Gauges)
        for name, value in event.values.items()
        if value is not None
        and name.startswith(("rate/", "stage/", "cpu/"))
        and not 0 <= value < (1e3 if name.startswith("stage/") else 1e6)
    ]


def test_a_trainer_that_is_suspended_goes_on_as_if_nothing_had_been(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, "train.steps=140", task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"suspended": 40, "gauges_often": 0.1}, suspended=1.2) == 0
    assert server.seconds > 1.2
    assert ledger.faults() == []
    assert impossible(run) == [] and warnings(run) == []
    updates = newest(run).manifest["updates"]
    prefill = next(
        e.env_steps
        for e in read(run)
        if isinstance(e, events.PhaseChanged) and e.phase == "training"
    )
    assert abs(updates - UPDATES_PER_STEP * (ledger.steps - prefill)) <= 3


@pytest.mark.parametrize("wrong", [{}, {"intervals_by_wall_clock": 1}])
def test_a_wall_clock_that_jumps_changes_no_rate_and_no_save(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any]
) -> None:
    """A day ahead and a day behind in turns; checkpoints are due only at the end."""
    settings = "train.steps=400", "train.checkpoint_seconds=1000", "train.sync=true", SLOW
    run = make_run(tmp_path, *settings, task="seek")
    assert server.train(run, {"clock_jumps": 1, **wrong}) == 0
    records, _ = events.read_events(run.events_path)
    times, monos = ([getattr(r, name) for r in records] for name in ("time", "mono"))
    assert max(times) - min(times) > 86_400, "the clock did jump"
    assert monos == sorted(monos)
    fine = impossible(run) == [] and saves(run) == 1
    assert fine == (not wrong)


WALL_CLOCK = {
    "store/events.py": 1,  # when an event was written, which people read
    "store/checkpoint.py": 1,  # as much of a checkpoint
    "store/control_dir.py": 2,  # requests in the order of their names
    "store/run_lock.py": 1,  # since when a run is in use
    "store/run_dir.py": 1,  # the name of a new run
    "store/removal.py": 1,  # how old files are that nobody seems to write any more
    "run/films/film.py": 1,  # when a film was made
    "run/trackers.py": 1,  # what a tracker's server is told
}
"""How often modules of a trainer name the wall clock; its intervals have the monotonic one."""
COMMANDS = ("bench", "cli", "play")
"""Packages of which nothing runs while a trainer trains."""


def wall_clocks(source: str) -> int:
    """How often a module names the wall clock, whether it reads it there or passes it on."""
    words = "time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"
    nodes = list(ast.walk(ast.parse(source)))
    named = sum(isinstance(n, ast.Attribute) and ast.unparse(n) in words for n in nodes)
    taken = [n.names for n in nodes if isinstance(n, ast.ImportFrom) and n.module == "time"]
    return named + sum(alias.name in ("time", "time_ns") for names in taken for alias in names)


def test_only_what_is_told_to_people_has_the_time_of_the_wall_clock() -> None:
    package = Path(dreamer_async.__file__).parent
    paths = {str(p.relative_to(package)): p for p in package.rglob("*.py")}
    found = {
        name: wall_clocks(path.read_text())
        for name, path in paths.items()
        if not name.startswith(COMMANDS)
    }
    assert {name: count for name, count in found.items() if count} == WALL_CLOCK
    wrong = "from time import time", "def f(clock=time.time): ...", "datetime.now()"
    assert [wall_clocks(text) for text in wrong] == [1, 1, 1], "the control"


# -- 5, 6, 16, 20: disks -------------------------------------------------------------------------


def on_a_disk(server: Server, run: RunDir, inject: Mapping[str, Any], resume: bool = False) -> int:
    """Train with mounts of its own; skips the test where nobody may mount."""
    code = server.train(run, inject, resume=resume)
    if code == CANNOT:
        pytest.skip("no mount name spaces here")
    return code


@pytest.mark.parametrize("resume", [False, True])
def test_a_read_only_run_is_refused_before_anything_starts(
    server: Server, tmp_path: Path, resume: bool
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    inject = {"read_only": str(run.path), "environment_aborts": 1}
    assert on_a_disk(server, run, inject, resume) == 73
    assert "Read-only file system" in log(run) and log(run).count("\n") == 1
    after = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.name != "trainer.log"}
    assert after == before
    assert server.train(run, {"environment_aborts": 1}) == -signal.SIGABRT, "the control"


def test_a_run_that_is_missing_or_no_directory_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        for resume in (False, True):
            assert pipeline.main(RunDir(path), plain=False, resume=resume) == 73
            err = capfd.readouterr().err
            assert str(path) in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"gives_up_at_once": 1}, 74)], ids=["real", "control"]
)
def test_a_disk_that_is_full_for_a_while_costs_one_checkpoint(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    settings = "train.steps=80", "train.checkpoint_seconds=0.001", "train.sync=true"
    run = make_run(tmp_path, *settings, task="seek")
    inject = {**wrong, "small_disk_for_a_while": str(run.checkpoints)}
    assert on_a_disk(server, run, inject) == code
    failed = [text for text in warnings(run) if "checkpoint not saved" in text]
    assert len(failed) == (2 if wrong else 1) and "No space left" in failed[0]
    assert (saves(run) > 2) == (code == 0), "training went on and saved"


def test_a_disk_that_stays_full_ends_the_run_after_three_tries(
    server: Server, tmp_path: Path
) -> None:
    settings = "train.steps=10_000_000", "train.checkpoint_seconds=0.02", "train.sync=true"
    run = make_run(tmp_path, *settings, task="seek")
    assert on_a_disk(server, run, {"small_disk": str(run.checkpoints)}) == 74
    assert sum("checkpoint not saved" in text for text in warnings(run)) == 4, "the last one twice"


def test_a_disk_that_takes_no_events_is_said_once_and_training_goes_on(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, SLOW, task="seek")
    with server.start(run, {"gauges_often": 0.02, "events_refused": 30}) as trainer:
        trainer.wait_for(says_that_events_are_written_again)
        run.request("stop")
        assert trainer.wait() == 0
    assert log(run).count("events cannot be written to the disk") == 1
    again = [text for text in warnings(run) if "written again" in text]
    assert len(again) == 1 and int(again[0].split("; ")[1].split()[0]) >= 25
    assert isinstance(read(run)[-1], events.RunFinished)


def says_that_events_are_written_again(event: events.Event) -> bool:
    return isinstance(event, events.Warned) and "written again" in event.message


def test_a_stream_that_must_be_written_is_caught(server: Server, tmp_path: Path) -> None:
    """The control of the test before."""
    run = make_run(tmp_path, *SEEK, SLOW, task="seek")
    inject = {"gauges_often": 0.02, "events_refused": 30, "events_must_be_written": 1}
    assert server.train(run, inject) == 74
    assert not isinstance(read(run)[-1], events.RunFinished), "not even its end is there"


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 74), ({"sparse_ring": 1}, -signal.SIGBUS)], ids=["real", "control"]
)
def test_a_ring_on_a_small_disk_is_refused_and_not_a_crash_later(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    settings = f"replay.directory={disk}", "replay.capacity=40_000"
    run = make_run(tmp_path, *SEEK, *settings, task="seek")
    assert on_a_disk(server, run, {"small_disk": str(disk), **wrong}) == code
    assert ("the replay needs" in log(run)) == (not wrong)


def test_a_save_that_does_not_hear_fsync_is_caught(server: Server, tmp_path: Path) -> None:
    """The control of the test with an fsync that fails."""
    settings = "train.steps=80", "train.checkpoint_seconds=0.001", "train.sync=true"
    run = make_run(tmp_path, *SEEK, *settings, task="seek")
    code = server.train(run, {"fsync_error": 4, "swallow_fsync_errors": 1})
    assert code == 0 and saves(run) > 1, "checkpoints that are not on the disk were announced"


# -- 9: environments -----------------------------------------------------------------------------


def test_an_adapter_that_trusts_its_environments_is_caught(server: Server, tmp_path: Path) -> None:
    """The control of the test with a reward that is not finite."""
    run = make_run(tmp_path, *SEEK, SLOW, "train.steps=200", task="seek")
    ledger = Ledger(run)
    server.train(run, {"environment_lies": 30, "trust_environments": 1})
    assert "wrong steps in the ring" in " ".join(ledger.faults())


@pytest.mark.parametrize("told", [True, False], ids=["real", "control"])
def test_a_crash_in_c_says_where_every_thread_was(
    server: Server, tmp_path: Path, told: bool
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    inject = {"environment_aborts": 20} | ({} if told else {"silent_crash": 1})
    assert server.train(run, inject) == -signal.SIGABRT
    said = log(run)
    assert ("Fatal Python error: Aborted" in said and "in broken" in said) == told
    others = said.split("\nThread 0x")[1:]
    assert any("in child" in each for each in others) == told, "that of the event loop, too"
    assert (sum("in _serve" in each for each in others) > 1) == told, "and those that wait"


# -- 11: losses that are not finite --------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"trust_gradients": 1}, 70)], ids=["real", "control"]
)
def test_a_few_poisoned_batches_cost_their_updates_only(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    """Where they are not skipped, every update after them is lost, too."""
    settings = "train.steps=160", "train.sync=true", "train.skip_limit=5"
    run = make_run(tmp_path, *settings, task="seek")
    assert server.train(run, {"poisoned_batches": 3, **wrong}) == code
    if code:
        assert "5 updates in a row were not finite" in log(run)
        return
    manifest = newest(run).manifest
    assert manifest["skipped"] == 3 and manifest["updates"] > 20
    assert sum("not finite" in text for text in warnings(run)) == 3


# -- 8, 17: memory -------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "warned"), [(1000, True), (1 << 40, False)])
def test_a_replay_that_will_not_stay_in_memory_is_a_warning(
    server: Server, tmp_path: Path, left: int, warned: bool
) -> None:
    run = make_run(tmp_path, "train.steps=40", task="seek")
    assert server.train(run, {"little_memory": left}) == 0
    assert any("sampling reads from the disk" in text for text in warnings(run)) == warned


def test_an_allocation_that_fails_without_a_word_for_it_is_caught(
    server: Server, tmp_path: Path
) -> None:
    """The control of the tests that run out of memory."""
    run = make_run(tmp_path, *SEEK, task="seek")
    assert server.train(run, {"memory_runs_out": 5, "no_word_for_memory": 1}) == 1
    assert "train.batch_size" not in log(run)


def test_a_memory_limit_of_the_kernel_ends_the_run_in_words(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"memory_limit": 256}) == 71
    assert ledger.faults() == []
    assert "out of memory" in log(run) and "train.batch_size" in log(run)
    assert server.train(*until(run, ledger), resume=True) == 0
    assert ledger.resumed() == []


# -- 21, 23: resuming ----------------------------------------------------------------------------


def test_a_lockstep_resume_with_another_torch_or_library_warns(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "train.steps=60", "train.sync=true", task="seek")
    ledger = Ledger(run)
    assert server.train(run) == 0
    path = newest(run).path / checkpoint.MANIFEST
    saved = json.loads(path.read_text())
    manifest = saved | {"torch": "1.0\x1b[2J", "native": "kernels-of-others"}
    manifest[checkpoint.OWN_HASH] = checkpoint._manifest_hash(manifest)
    path.write_text(json.dumps(manifest))
    assert server.train(*until(run, ledger), resume=True) == 0
    assert any("saved with torch '1.0\\x1b[2J', continued with" in text for text in warnings(run))
    library = f"'kernels-of-others', continued with {saved['native'] or 'none'}"
    assert any(f"saved with native functions {library}" in text for text in warnings(run))
    assert not any("saved with threads" in text for text in warnings(run)), "control"


def saves_updates(event: events.Event) -> bool:
    return isinstance(event, events.Checkpointed) and event.updates > 0


@pytest.mark.parametrize("wrong", [{}, {"debt_explodes": 1}], ids=["real", "control"])
def test_updates_after_a_kill_come_at_the_train_ratio(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any]
) -> None:
    """The ring is ahead of the checkpoint; what it had paid for is forgiven, not made up for."""
    run = make_run(tmp_path, *SEEK, "train.checkpoint_seconds=0.2", task="seek")
    ledger = Ledger(run)
    with server.start(run) as trainer:
        trainer.wait_for(saves_updates)
    saved = newest(run).manifest
    assert server.train(*until(run, ledger), wrong, resume=True) == 0
    resumed = next(e for e in read(run) if isinstance(e, events.Resumed))
    assert resumed.updates == saved["updates"] and resumed.env_steps >= saved["env_steps"]
    lacking = lacking_updates(saved | {"env_steps": resumed.env_steps}, newest(run).manifest)
    assert (lacking in (0, 1)) == (not wrong), "at most the update that the stop cut short"
