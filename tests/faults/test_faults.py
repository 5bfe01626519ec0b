"""The fault matrix: the real trainer is killed, starved and lied to, and nothing is lost.

Every check has a control: a wrong program that the same check catches.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_runs import KILLS, SEEK, Ledger, Server, log, until
from tiny_run import extend, make_run, newest, read

from dreamer_async.store import checkpoint, events
from dreamer_async.store.run_dir import RunDir

pytestmark = pytest.mark.faults
MOST_KILLS = 1000
"""Of a wrong program, which a few should do for; each hits a wide window by chance."""


# -- 1: kill -9 at any time ------------------------------------------------------------------


def lives(server: Server, run: RunDir, kills: int, inject: Mapping[str, Any]) -> list[str]:
    """Kill a trainer again and again at random moments; returns everything that was wrong.

    The first life ends with its first checkpoint. From then on lives may last longer after one
    that announced no checkpoint and less long after one that did, so that about half of them do
    on any machine. A wrong program (`inject`) is killed until it is caught.
    """
    chance, ledger, wrong, longest = random.Random(0), Ledger(run), [], 0.0
    for life in range(kills):
        moment = chance.uniform(0.0, longest) if life else "saved"
        code = server.train(run, inject, resume=life > 0, kill_after=moment)
        if code != -signal.SIGKILL:
            return [*wrong, f"life {life} ended by itself with {code}: {log(run)[-500:]}"]
        before = ledger.saves
        wrong += [f"life {life}: {fault}" for fault in ledger.faults()]
        longest = (longest or server.seconds) * (0.8 if ledger.saves > before else 1.25)
        if inject and wrong:
            return wrong
    return wrong + ([] if inject else revived(server, run, ledger))


def revived(server: Server, run: RunDir, ledger: Ledger) -> list[str]:
    """After all that the run still goes on to its end."""
    extend(run, f"train.steps={ledger.steps + 40}")
    code = server.train(run, resume=True)
    return ledger.resumed() + ([] if code == 0 else [f"exit code {code}: {log(run)[-500:]}"])


def test_kill_9_at_any_time_loses_nothing_that_was_acknowledged(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    assert lives(server, run, KILLS, {}) == []
    saves = [e for e in read(run) if isinstance(e, events.Checkpointed)]
    assert len(saves) >= KILLS / 4, "the kills must hit runs that save"


@pytest.mark.parametrize("mutant", ["acknowledge_first", "overwrite_in_place", "publish_early"])
def test_the_same_check_catches_wrong_programs(server: Server, tmp_path: Path, mutant: str) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    wrong = lives(server, run, MOST_KILLS, {mutant: 1})
    expected = {"publish_early": "wrong steps"}.get(mutant, "checkpoint")
    assert expected in " ".join(wrong), wrong


# -- 2: kill -9 at every call of a save that touches the disk ---------------------------------


def crash_points(server: Server, root: Path, inject: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Die before the first, second, ... such call; returns how many there are, and faults.

    A wrong program (`inject`) dies until it is caught.

    Every life but the first begins with what the one before left, and dies in a save that holds
    an update more and removes an old checkpoint. The last one has no such call and ends by itself.
    """
    run = make_run(root, *CRASHING, task="seek")
    ledger, wrong, left = Ledger(run), list[str](), set[Path]()
    for point in range(1, 100):
        code = server.train(run, {**inject, "crash_at": point}, resume=point > 1)
        faults = (ledger.resumed() if point > 1 else []) + ledger.faults()
        faults += [f"litter {path.name}" for path in left.intersection(run.checkpoints.iterdir())]
        wrong += [f"point {point}: {fault}" for fault in faults]
        if code != -signal.SIGKILL:
            wrong += [f"point {point}: exit code {code}"] if code else []
            return point - 1, wrong
        if inject and wrong:
            return point, wrong
        left = set(run.checkpoints.glob(".*"))
        extend(run, f"train.steps={ledger.steps + 60}")
    raise AssertionError("a save has no end")


CRASHING = ("train.steps=100", "train.checkpoint_seconds=1e-6", "train.sync=true")
"""A save after every batch of steps."""


def test_every_crash_point_of_a_save_gives_the_old_or_the_new(
    server: Server, tmp_path: Path
) -> None:
    points, wrong = crash_points(server, tmp_path, {})
    assert wrong == []
    assert points >= 8, "a save makes, writes, syncs, renames, prunes"


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        ("overwrite_in_place", "no checkpoint is left"),
        ("remove_before_saving", "no checkpoint is left"),
        ("keep_litter", "litter"),
    ],
)
def test_the_same_points_catch_wrong_saves(
    server: Server, tmp_path: Path, mutant: str, fault: str
) -> None:
    _, wrong = crash_points(server, tmp_path, {mutant: 1})
    assert any(fault in text for text in wrong), wrong


# -- 3, 4: stopping --------------------------------------------------------------------------


def test_a_thread_stuck_in_c_is_bounded_and_the_last_checkpoint_stands(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, "train.grace_seconds=1", task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"update_hangs": 5}) == 75
    assert ledger.faults() == []
    assert newest(run).manifest["updates"] > 0
    assert "not stopped after" in log(run) and "in _hang" in log(run)


# -- 5, 6, 20: disks -------------------------------------------------------------------------


def test_a_full_disk_keeps_the_old_checkpoints_and_ends_after_three_tries(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"file_limit": 40_000}) == 74
    assert ledger.faults() == []
    warned = [e for e in read(run) if isinstance(e, events.Warned)]
    assert sum("checkpoint not saved" in e.message for e in warned) == 4, "the last one twice"
    assert "updates are lost, all since checkpoints/step-" in log(run)
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    assert server.train(*until(run, ledger), resume=True) == 0
    assert ledger.resumed() == []


def test_an_fsync_that_fails_is_no_checkpoint(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    assert server.train(run, {"fsync_error": 4}) == 74
    saved = [e for e in read(run) if isinstance(e, events.Checkpointed)]
    assert len(saved) == len(list(checkpoint.candidates(run.checkpoints))) == 1


def test_a_ring_that_does_not_fit_is_refused_before_any_environment(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, "replay.capacity=1_000_000_000_000", task="seek")
    assert server.train(run, {"environment_aborts": 1}) == 74
    assert "GB" in log(run) and "replay" in log(run)
    assert not run.replay_paths()[0].exists()


# -- 9, 10: environments ---------------------------------------------------------------------


def test_a_process_that_dies_in_c_says_where_and_the_run_goes_on(
    server: Server, tmp_path: Path
) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_aborts": 40}) == -signal.SIGABRT
    assert ledger.faults() == []
    assert "Fatal Python error: Aborted" in log(run) and "in broken" in log(run)
    assert server.train(*until(run, ledger), resume=True) == 0
    assert ledger.resumed() == []


def test_a_reward_that_is_not_finite_is_never_stored(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"environment_lies": 30}) == 69
    assert "reward" in log(run) and "not finite" in log(run)
    assert ledger.faults() == []


# -- 17: memory ------------------------------------------------------------------------------


def test_running_out_of_memory_names_what_would_help(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, *SEEK, task="seek")
    ledger = Ledger(run)
    assert server.train(run, {"memory_runs_out": 5}) == 71
    assert ledger.faults() == []
    assert "out of memory" in log(run) and "train.batch_size" in log(run)
    last = read(run)[-1]
    assert isinstance(last, events.RunFinished) and last.exit_code == 71


# -- 21: another machine ---------------------------------------------------------------------


def test_a_lockstep_resume_with_another_thread_count_warns(server: Server, tmp_path: Path) -> None:
    run = make_run(tmp_path, "train.steps=60", "train.sync=true", task="seek")
    ledger = Ledger(run)
    assert server.train(run) == 0
    assert server.train(*until(run, ledger), resume=True) == 0
    warned = [e.message for e in read(run) if isinstance(e, events.Warned)]
    assert all("train.steps" in message for message in warned), "the control"
    assert server.train(*until(run, ledger, "train.threads=2"), resume=True) == 0
    warned = [e.message for e in read(run) if isinstance(e, events.Warned)]
    assert any("threads 1, continued with 2" in message for message in warned), warned
