"""The fault matrix, how a run ends: nothing that was learned is lost, and nobody is waited for.

Every check has a control: a wrong program that the same check catches.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_runs import SEEK, Ledger, Server, log
from injections import BUILDS, CANNOT, HANGS
from tiny_run import TINY, extend, make_run, newest, read

from dreamer_async.config import resolve, to_dict
from dreamer_async.store import checkpoint, events
from dreamer_async.store.exit_codes import STUCK
from dreamer_async.store.run_dir import RunDir

pytestmark = pytest.mark.faults
RARELY = "train.checkpoint_seconds=1000"
SLOWNESS = 600
"""Seconds that environments take to build: many more than a test waits for a trainer."""


def warnings(run: RunDir) -> list[str]:
    return [e.message for e in read(run) if isinstance(e, events.Warned)]


def finished(run: RunDir) -> events.RunFinished:
    last = read(run)[-1]
    assert isinstance(last, events.RunFinished), log(run)
    return last


def saved_updates(run: RunDir) -> int:
    """Updates in the newest checkpoint, 0 without one."""
    found, _ = checkpoint.newest(run.checkpoints)
    return 0 if found is None else found.manifest["updates"]


def is_metrics(event: events.Event) -> bool:
    return isinstance(event, events.Metrics)


def patience(code: int) -> str:
    """The grace period of a run that shall end with this code: long, unless it is to be over."""
    return f"train.grace_seconds={2 if code == STUCK else 60}"


# -- a disk that refuses the last save -----------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 74), ({"last_save_as_any": 1}, 0)], ids=["real", "control"]
)
def test_a_last_save_that_fails_says_what_is_lost_and_what_would_help(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    run = make_run(tmp_path, "train.steps=100", RARELY, task="seek")
    assert server.train(run, {**wrong, "file_limit_at_the_end": 40_000}) == code
    assert saved_updates(run) == 0
    if not code:
        return
    lost = finished(run).updates
    assert lost > 0 and finished(run).exit_code == 74
    assert f"{lost} updates are lost: there is no other" in log(run)
    assert f"free some disk space, then continue with `dreamer-async resume {run.name}`" in log(run)
    extend(run, "train.steps=120")
    assert server.train(run, resume=True) == 0, "the replay is still there"


def test_a_last_save_that_fails_names_the_checkpoint_that_stays(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "train.steps=100", RARELY, task="seek")
    assert server.train(run) == 0
    before = saved_updates(run)
    extend(run, "train.steps=140")
    assert server.train(run, {"file_limit_at_the_end": 40_000}, resume=True) == 74
    lost = finished(run).updates - before
    assert f"{lost} updates are lost, all since checkpoints/step-" in log(run)
    assert saved_updates(run) == before


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"makes_no_room": 1}, 74)], ids=["real", "control"]
)
def test_a_last_save_takes_the_room_of_older_ones_if_it_must(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    run = make_run(tmp_path, "train.steps=80", RARELY, task="seek")
    assert server.train(run) == 0
    extend(run, "train.steps=100")
    assert server.train(run, resume=True) == 0
    assert len(list(checkpoint.candidates(run.checkpoints))) == 2
    extend(run, "train.steps=120")
    # what is on the disk that is mounted is only seen by the trainer, so that it has to say it
    inject = {"disk_that_fills": [str(run.checkpoints), 20_000], **wrong}
    ended = server.train(run, inject, resume=True)
    if ended == CANNOT:
        pytest.skip("no mount name spaces here")
    assert ended == code
    failed = [text for text in warnings(run) if "checkpoint not saved" in text]
    assert "No space left" in failed[0] and "trying once more with" in failed[0]
    kept = [e.updates for e in read(run) if isinstance(e, events.Checkpointed)]
    assert (kept[-1] == finished(run).updates) == (not code)


def test_room_is_made_only_beyond_the_newest_good_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for step in (10, 20, 30, 40):
        checkpoint.save(run.checkpoints, step, {}, {}, keep=9)
    bad = run.checkpoints / "step-000000000040"
    (bad / checkpoint.STATE).write_bytes(b"junk")
    (run.checkpoints / ".tmp-1").mkdir()
    assert checkpoint.make_room(run.checkpoints) > 0
    assert sorted(path.name[-2:] for path in run.checkpoints.iterdir()) == ["30", "40"]
    shutil.rmtree(run.checkpoints / "step-000000000030")
    assert checkpoint.make_room(run.checkpoints) == 0 and bad.exists(), "none is good: none goes"


# -- environments that do not answer -------------------------------------------------------------


@pytest.mark.parametrize("sync", ["true", "false"])
@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"waits_for_environments": 1}, 75)], ids=["real", "control"]
)
def test_a_stop_leaves_an_environment_that_hangs_in_c_behind(
    server: Server, tmp_path: Path, sync: str, wrong: Mapping[str, Any], code: int
) -> None:
    settings = "train.steps=10_000_000", f"train.sync={sync}", RARELY
    run = make_run(tmp_path, *settings, patience(code), task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_hangs": 40, **wrong}) == code
    assert HANGS in log(run)
    if code:
        assert saved_updates(run) == 0
        return
    assert saved_updates(run) == finished(run).updates > 0
    assert finished(run).reason == "stopped" and ledger.faults() == []
    extend(run, f"train.steps={finished(run).env_steps + 40}")
    assert server.train(run, resume=True) == 0
    assert ledger.resumed() == []


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"waits_for_environments": 1}, 75)], ids=["real", "control"]
)
def test_a_stop_leaves_an_evaluation_that_hangs_behind(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    settings = "train.steps=10_000_000", RARELY, patience(code)
    run = make_run(tmp_path, *settings, task="seek")
    with server.start(run, {"evaluation_hangs": 1, "gauges_often": 0.05, **wrong}) as trainer:
        trainer.wait_for(is_metrics, 3)
        run.request("evaluate")
        trainer.wait_for(lambda event: isinstance(event, events.Controlled))
        run.request("stop")
        assert trainer.wait(60) == code, log(run)
    assert (saved_updates(run) > 0) == (not code)


def gym_run(root: Path, task: str, *settings: str) -> RunDir:
    config = resolve("gym", task, size="tiny", overrides=(*TINY, "env.num_envs=2", *settings))
    return RunDir.create(root, "gym", config=to_dict(config))


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("Sleeping", "Deaf")]


@pytest.mark.parametrize("name", [*SLOWLY, "Native", "Suspended"])
def test_a_stop_does_not_wait_for_workers_that_hang(
    server: Server, tmp_path: Path, name: str
) -> None:
    """In Python, in C with the GIL, deaf to signals, stopped: one is all it takes."""
    run = gym_run(tmp_path, f"faulty_envs:{name}", "train.steps=10_000_000", RARELY)
    inject = {"allowed": f"faulty_envs:{name}", "gauges_often": 0.1}
    with server.start(run, inject) as trainer:
        trainer.wait_until(lambda: still(run))
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(60) == 0, log(run)
    assert saved_updates(run) == finished(run).updates > 0
    assert finished(run).reason == "stopped"


def still(run: RunDir) -> bool:
    """Whether the last gauges show updates, and no new step for a while."""
    steps = [e.env_steps for e in read(run) if isinstance(e, events.Gauges) and e.updates > 0]
    return len(steps) > 10 and steps[-10:] == steps[-1:] * 10


@pytest.mark.parametrize(
    ("wrong", "ends"), [({}, True), ({"builds_in_the_loop": 1}, False)], ids=["real", "control"]
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_signal_is_heard_while_environments_are_built(
    server: Server, tmp_path: Path, resume: bool, wrong: Mapping[str, Any], ends: bool
) -> None:
    run = make_run(tmp_path, "train.steps=60", task="seek")
    if resume:
        assert server.train(run) == 0
        extend(run, "train.steps=10_000_000")
    before = run.events_path.read_bytes() if resume else b""
    with server.start(run, {"slow_environments": SLOWNESS, **wrong}, resume=resume) as trainer:
        if not ends:
            trainer.wait_until(lambda: BUILDS in log(run))
            time.sleep(2)
            assert trainer.alive()
            return
        assert trainer.wait() == 0, log(run)
    if resume:
        assert run.events_path.read_bytes() == before, "as if it had not been resumed"
        assert f"stopped (signal SIGTERM) before {run.name} continued" in log(run)
    else:
        assert finished(run).reason == "stopped" and finished(run).env_steps == 0
    extend(run, "train.steps=100")
    assert server.train(run, resume=True) == 0


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"waits_for_environments": 1}, 75)], ids=["real", "control"]
)
def test_a_stop_does_not_wait_for_a_compiler(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    settings = "train.steps=10_000_000", patience(code), "train.capture=false"
    run = make_run(tmp_path, *settings, task="seek")
    assert server.train(run, {"compiling_hangs": 1, **wrong}) == code
    if not code:
        assert finished(run).reason == "stopped" and finished(run).updates == 0
        assert list(run.checkpoints.iterdir()) == [], "nothing was learned"


# -- what fails besides the learner --------------------------------------------------------------


@pytest.mark.parametrize("sync", ["true", "false"])
@pytest.mark.parametrize("wrong", [{}, {"fails_without_saving": 1}], ids=["real", "control"])
def test_an_environment_that_fails_costs_no_update(
    server: Server, tmp_path: Path, sync: str, wrong: Mapping[str, Any]
) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000", RARELY, f"train.sync={sync}", task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_lies": 40, **wrong}) == 69
    assert finished(run).updates > 0 and finished(run).exit_code == 69
    assert saved_updates(run) == (0 if wrong else finished(run).updates)
    assert ledger.faults() == []


# -- who reads, who listens ----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{}, {"prints_itself": 1}], ids=["real", "control"])
def test_nobody_has_to_read_what_a_run_prints(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any]
) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000", RARELY, task="seek")
    with server.start(run, {"full_pipe": 1, **wrong}) as trainer:
        if wrong:
            time.sleep(3)
            assert not any(map(is_metrics, read(run)))
            return
        trainer.wait_for(is_metrics, 3)
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(60) == 0
    assert saved_updates(run) == finished(run).updates > 0


def test_an_error_that_nobody_reads_ends_the_run_as_well(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000", RARELY, task="seek")
    assert server.train(run, {"full_pipe": 1, "environment_lies": 40}) == 69


def test_the_watchdog_bites_although_nobody_reads(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, "train.grace_seconds=1", task="seek")
    assert server.train(run, {"full_pipe": 1, "silent_update_hangs": 5}) == 75


@pytest.mark.parametrize(
    ("wrong", "code"), [({}, 0), ({"listeners_count": 1}, 1)], ids=["real", "control"]
)
def test_a_full_disk_under_tensorboard_is_a_warning(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any], code: int
) -> None:
    pytest.importorskip("tensorboard")
    run = make_run(tmp_path, "train.steps=400", "train.train_ratio=2", task="seek")
    run.tracker("tensorboard").mkdir()
    inject = {"small_disk": str(run.tracker("tensorboard")), "gauges_often": 0.01, **wrong}
    ended = server.train(run, inject)
    if ended == CANNOT:
        pytest.skip("no mount name spaces here")
    assert ended == code
    if not code:
        assert sum("tensorboard failed and gets no more" in text for text in warnings(run)) == 1


# -- a directory that is renamed or removed ------------------------------------------------------


@pytest.mark.parametrize("wrong", [{}, {"known_by_its_path": 1}], ids=["real", "control"])
def test_a_run_whose_directory_is_renamed_goes_on_in_it(
    server: Server, tmp_path: Path, wrong: Mapping[str, Any]
) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000", RARELY, task="seek")
    moved = RunDir(tmp_path / "moved")
    with server.start(run, {"gauges_often": 0.05, **wrong}) as trainer:
        trainer.wait_for(is_metrics, 3)
        os.rename(run.path, moved.path)
        time.sleep(0.5)
        moved.request("stop")
        if wrong:
            time.sleep(3)
            assert not list(checkpoint.candidates(moved.checkpoints))
            return
        assert trainer.wait(60) == 0, log(moved)
    assert not run.path.exists()
    assert saved_updates(moved) == finished(moved).updates > 0
    extend(moved, f"train.steps={finished(moved).env_steps + 40}")
    assert server.train(moved, resume=True) == 0


def test_a_run_whose_directory_is_removed_keeps_what_it_has_learned(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, "train.steps=10_000_000", RARELY, task="seek")
    said = tmp_path / "said"
    with server.start(run, {"gauges_often": 0.05}) as trainer:
        trainer.wait_for(is_metrics, 3)
        os.link(run.path / "trainer.log", said)
        shutil.rmtree(run.path)
        assert trainer.wait(60) == 73, said.read_text()
    line = said.read_text().splitlines()[-1]
    assert "was removed while it trained" in line and f"is kept in {run.path}" in line
    assert newest(run).manifest["updates"] > 0
    extend(run, f"train.steps={newest(run).manifest['env_steps'] + 100}")
    assert server.train(run, resume=True) == 0, log(run)
